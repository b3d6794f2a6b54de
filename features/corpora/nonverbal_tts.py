"""NonverbalTTS: English speech with laughs, sighs and breaths, marked in its transcripts.

6,256 clips, 17.6 h, of VoxCeleb (4,452, 16 kHz) and Expresso (1,804, 48 kHz), in eight emotions,
those of HERON's prompt: what is public of HERON names no corpus, but these are its classes. They
are extremely skewed: 42 % neutral, ten fearful clips in all. The emotions come from the authors'
pipeline, which includes an emotion classifier and so may favour backbones trained for emotion.

Reference: Borisov, Spirin and Diatlova 2025, arXiv 2507.13155.
Licence: research only. The hub's tag says Apache-2.0, card and paper CC BY-NC-SA 4.0 (of the
annotations), and the audio stays under the terms of VoxCeleb and Expresso: the strictest holds.
Layout (Hugging Face `deepvk/NonverbalTTS`): `default/{train,dev,test}/*.parquet`; also `data/` in
place of `default/`, and `data/train-*.parquet`. Columns: index, audio (bytes and path), Result (the
final transcript), Emotion, speaker_id, gender, and others that are ignored. The audio is written
below the root once, under `heronry_audio/`.

Ten non-verbal events are marked in the transcripts by emoji. What a text model sees of them is an
option: they are not words, a speech recogniser would not write them, and a laugh gives the emotion
away. With them the text slot takes credit for what HERON wants from the audio.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from features.corpora._tables.cells import EmptyText, identity, words
from features.corpora._tables.embedded_audio import unpack
from features.corpora._tables.layouts import shards_below, wrong_root
from features.corpora._tables.parquet import Shard
from features.corpus.adapter import CorpusFactory, Item, Published, Source
from features.errors import ManifestError

CLASSES = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised", "other")
REQUIRED = ("audio", "Result", "Emotion", "speaker_id")
OPTIONAL = ("index", "gender")
FOLDERS = ("default", "data", ".")
GENDERS = {"m": "male", "f": "female"}
# Public readers agree on seven of the events, and on two signs each for the last three.
EVENTS = {
    "\N{WIND BLOWING FACE}": "breath",
    "\N{ROLLING ON THE FLOOR LAUGHING}": "laugh",
    "\N{FACE WITH MEDICAL MASK}": "cough",
    "\N{FACE WITH LOOK OF TRIUMPH}": "sigh",
    "\N{SNEEZING FACE}": "sneeze",
    "\N{SLEEPING FACE}": "snore",
    "\N{NOSE}": "sniff",
    "\N{TIRED FACE}": "groan",
    "\N{CONFOUNDED FACE}": "groan",
    "\N{FISTED HAND SIGN}": "grunt",
    "\N{PIG}": "grunt",
    "\N{MOUTH}": "throat-clear",
    "\N{SPEAKING HEAD IN SILHOUETTE}": "throat-clear",
}
UNKNOWN_EVENT = "event"
RARE = (
    "NonverbalTTS has about ten fearful and 25 angry clips in all: macro-F1 and UAR hang on single "
    "clips of the test split, so read them with their intervals. For research only."
)
LEAK = (
    "The transcripts show the annotated non-verbal events, which no speech recogniser would have "
    "written: the text knows of the audio."
)
# Variation selectors, the joiner and skin tones: they change how a sign looks, not what it is.
_LOOKS = re.compile("[\ufe00-\ufe0f\u200d\U0001f3fb-\U0001f3ff]")
# Miscellaneous symbols, dingbats, and the blocks of emoji.
_PICTOGRAPH = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")

Events = Literal["emoji", "tags", "removed"]


class NonverbalTts:
    """The clips below `root`, in the order of their files and rows.

    Args:
        root: Folder of the corpus.
        events: Form of the non-verbal events in the text. `removed`: none, there are only words
            (a clip without any has an empty text). `tags`: names such as `[laugh]`. `emoji`: the
            signs as annotated. The latter two leak, see above. HERON does not say which it used.
        empty_text: `encode` keeps clips of laughs and sighs alone in models with a text slot, whose
            encoder then reads its special tokens; `drop` leaves them out, as without a transcript.
    """

    source: ClassVar[Source] = Source(
        title="NonverbalTTS",
        licence="research only (hub tag Apache-2.0, card and paper CC BY-NC-SA 4.0; the audio is "
        "under the terms of VoxCeleb and Expresso)",
        citation="Borisov, Spirin and Diatlova 2025, arXiv 2507.13155",
        obtain="Run `hf download deepvk/NonverbalTTS --repo-type dataset --local-dir ROOT`.",
    )
    language: ClassVar[str] = "en"
    published: ClassVar[Published] = Published(
        utterances=5717,
        by={
            "label": {
                "neutral": 2406,
                "happy": 1604,
                "sad": 387,
                "angry": 25,
                "fearful": 10,
                "disgusted": 78,
                "surprised": 34,
                "other": 1173,
            }
        },
        source="card of the filtered copy somu9/nonverbal-tts-filtered",
        notes=(
            "The copy that was counted has 6,251 clips, 534 of them without an emotion; the corpus "
            "has 6,256, so that up to five more may be labelled (the missing five are Expresso's).",
            "The copy has splits of its own (5,387/284/580), not the official ones.",
        ),
    )
    classes = CLASSES

    def __init__(
        self, root: Path, *, events: Events = "removed", empty_text: EmptyText = "encode"
    ) -> None:
        self._root, self._events, self._empty = root, events, empty_text
        self.disclaimer = RARE if events == "removed" else f"{RARE} {LEAK}"

    def tables(self) -> Iterator[Path]:
        """The Parquet files, which hold the audio too."""
        return (shard.path for shard in self._shards())

    def items(self) -> Iterator[Item]:
        """All clips, those without an emotion with a reason; unpacks audio on the way.

        Raises:
            ManifestError: If the files are missing or cannot be read, or the root not be written.
        """
        for shard, items in self._read():
            yield from unpack(items, shard, "audio", self._root)

    def preview(self) -> Iterator[Item]:
        """All clips, without the audio that lies inside the tables.

        Raises:
            ManifestError: As `items`.
        """
        for _, items in self._read():
            for item in items:
                # Such a row may have no text: an empty one stands for the audio.
                yield dataclasses.replace(item, text=item.text or "")

    def _read(self) -> Iterator[tuple[Shard, list[Item]]]:
        """The files in their order, with an item for each row."""
        shards = self._shards()
        lacking = [
            f"{shard.name} has the columns {shard.names}"
            for shard in shards
            if not set(REQUIRED) <= set(shard.names) or not shard.embeds("audio")
        ]
        if lacking:
            raise ManifestError(
                f"{self._root} is not NonverbalTTS: {lacking[0]}; expected {list(REQUIRED)} with "
                f"the audio inside: {self.source.obtain}"
            )
        rows: dict[str | None, int] = {}
        for shard in shards:
            columns = [name for name in (*OPTIONAL, *REQUIRED) if name in shard.names]
            columns.remove("audio")
            items = []
            for row in shard.rows(columns):
                number = rows[shard.split] = rows.get(shard.split, -1) + 1
                try:
                    items.append(self._item(row, shard, number))
                except ManifestError as error:
                    items.append(Item(f"{shard.name} row {number}", None, "", fault=str(error)))
            yield shard, items

    def _shards(self) -> list[Shard]:
        for name in FOLDERS:
            shards = [s for s in shards_below(self._root, self._root / name) if s.split is not None]
            if shards:
                return shards
        lacks, wanted = "no default/train/*.parquet", ("default", "data")
        raise wrong_root(self._root, lacks, *wanted, corpus="NonverbalTTS", source=self.source)

    def _item(self, row: Mapping[str, Any], shard: Shard, number: int) -> Item:
        notes: list[str] = []
        index, speaker, emotion, gender = (
            identity(name, row.get(name), notes)
            for name in ("index", "speaker_id", "Emotion", "gender")
        )
        # Indices are unique within a split only, names of speakers in the whole corpus.
        id = f"{shard.split}/{number:05d}" if index is None else f"{shard.split}/{index}"
        label = emotion and emotion.lower()
        fault = None
        if label is not None and label not in CLASSES:
            fault = f"label {label!r} is not among the classes of NonverbalTTS"
        elif label is not None and speaker is None:
            fault = "it has no speaker"
        text = words("Result", row["Result"], notes)
        shown = None if text is None else transcript(text, self._events)
        if not shown and self._empty == "drop":
            shown = None
        return Item(
            id=id,
            label=None if fault else label,
            speaker=speaker or "",
            text=shown,
            gender=gender and GENDERS.get(gender.lower(), gender.lower()),
            split=shard.split,
            fault=fault,
            excluded="it has no emotion" if label is None else None,
            notices=tuple(notes),
        )


def transcript(text: str, events: Events) -> str:
    """A transcript with its events shown or not; empty if nothing is left of it.

    >>> transcript("Oh\N{ROLLING ON THE FLOOR LAUGHING}\ufe0f, no \N{NOSE}.", "tags")
    'Oh [laugh] , no [sniff] .'
    >>> transcript("Oh \N{ROLLING ON THE FLOOR LAUGHING}\ufe0f, no \N{NOSE}.", "removed")
    'Oh, no.'
    """
    text = _LOOKS.sub("", text)
    if events == "tags":
        text = _PICTOGRAPH.sub(lambda sign: f" [{EVENTS.get(sign[0], UNKNOWN_EVENT)}] ", text)
    elif events == "removed":
        text = re.sub(r"\s+([,.;:!?])", r"\1", _PICTOGRAPH.sub(" ", text))
    return " ".join(text.split())


build: CorpusFactory = NonverbalTts
