"""How much there is of a corpus: as it was prepared, or as published where it is not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.backbone.base import CHARACTERS_A_SECOND
from features.corpus.entry import CorpusEntry, corpus_entry
from features.corpus.manifest import Manifest
from pipeline.params.file import Params

# Utterances and hours of whole corpora by kind. NonverbalTTS: arXiv 2507.13155; all others: the
# table of EmoBox (arXiv 2406.07162), whose MSP-Podcast is an older and smaller release than that of
# the Interspeech 2025 challenge. The demo is generated.
HOURS = {
    "crema_d": (7442, 5.3),
    "demo": (416, 0.19),
    "emodb": (535, 0.4),
    "iemocap": (5531, 7.0),
    "meld": (13706, 12.1),
    "msp_podcast": (73042, 113.6),
    "nonverbal_tts": (6256, 17.6),
    "ravdess": (1440, 1.5),
}


@dataclass(frozen=True)
class CorpusSize:
    """Utterances of a corpus, their seconds of audio and the characters of their words.

    Attributes:
        utterances: Number of utterances.
        seconds: Seconds of audio.
        characters: Characters of text.
        prepared: Whether they were counted in `data/<corpus>/utterances`.
    """

    utterances: int
    seconds: float
    characters: float
    prepared: bool = True

    def line(self, corpus: str) -> str:
        """The size in words.

        >>> CorpusSize(5531, 25200.0, 378000.0, prepared=False).line("iemocap")
        'corpus iemocap: 5,531 utterances, 7.0 hours; not prepared, so by published counts'
        """
        state = "" if self.prepared else "; not prepared, so by published counts"
        hours = self.seconds / 3600
        return f"corpus {corpus}: {self.utterances:,} utterances, {hours:.1f} hours{state}"


def corpus_size(params: Params, corpus: str) -> CorpusSize | None:
    """Size of a corpus of params.yaml; None where it is not prepared, and no counts are published.

    None also of one that params.yaml does not have.

    Of a prepared one the manifest is read, as it is, whatever the entry says by now.
    """
    if corpus not in params.corpora:
        return None
    return _size(corpus_entry(corpus, params.corpora[corpus], params.corpora))


def _size(entry: CorpusEntry) -> CorpusSize | None:
    folder = Path("data", entry.name, "utterances")
    if folder.exists():
        rows = [(u.seconds or 0.0, len(u.text or "")) for u in Manifest.read(folder)]
        return CorpusSize(len(rows), sum(s for s, _ in rows), sum(n for _, n in rows))
    if entry.members:
        return _sum([_size(member) for member in entry.members])
    if entry.kind not in HOURS:
        return None
    counted, hours = HOURS[entry.kind]
    published = getattr(entry.adapter(Path()), "published", None)
    # A label map leaves some utterances out; theirs are taken to be as long as the others.
    utterances = counted if published is None else published.utterances
    seconds = utterances * hours * 3600 / counted
    return CorpusSize(utterances, seconds, seconds * CHARACTERS_A_SECOND, prepared=False)


def _sum(sizes: Sequence[CorpusSize | None]) -> CorpusSize | None:
    known = [each for each in sizes if each is not None]
    if len(known) < len(sizes):
        return None
    return CorpusSize(
        utterances=sum(each.utterances for each in known),
        seconds=sum(each.seconds for each in known),
        characters=sum(each.characters for each in known),
        prepared=False,
    )
