"""MELD: the Multimodal EmotionLines Dataset, dialogues from the series Friends.

13,708 utterances in 1,432 dialogues, each with an emotion and a sentiment. Neutral is 48 % of the
test split. Papers report weighted F1 over the seven emotions.

Reference: Poria et al. 2019, arXiv 1810.02508.
Licence: GPL-3.0 (the tables); clips and words are of a broadcast series: research only.
Layout, below the root or one folder down in `train`, `dev` and `test`:

    train_sent_emo.csv   dev_sent_emo.csv      test_sent_emo.csv
    train_splits/        dev_splits_complete/  output_repeated_splits_test/

The clips are `dia<D>_utt<U>.mp4`. The user extracts their sound to files beside them (.wav or
.flac):

    for f in */dia*.mp4; do ffmpeg -nostdin -i "$f" -vn "${f%.mp4}.wav"; done

Some have six channels, which are averaged when audio is read (`features.audio.read`). Clips
without a row in the tables are ignored, as the authors advise (declare-lab/MELD issue 22), among
them second takes of some test clips, `final_videos_testdia...`, which some users prefer. Some clips
are cut wrongly, such as test dia38_utt4 and dia220_utt0, which last minutes: they are kept, as in
published results. Two clips are unusable (`BAD_CLIPS`); their rows are used where text alone is.

Dialogues are numbered from 0 in each split, so ids start with the split: `train_dia0_utt0`. Curly
quotation marks become ' and ". Some copies of the tables have characters of Windows-1252 as control
characters or as single bytes, or text that was encoded twice: `_tables/cells.py` corrects them.

Protocol: `official`. It needs `allow_leak: [speaker]`: 82 of the 304 names occur in more than one
split, the six friends in all. A name is not always one person (All, Both, Woman). By their times
five stretches of the series are in two splits each (train dia12_utt7 and 8 are test dia85_utt0 and
1; train dia53_utt0 is dev dia52_utt2, train dia433_utt1 dev dia77_utt0, train dia887_utt0 test
dia117_utt8): if their sound files are equal, `prepare` asks for `recording` in `allow_leak` too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

from features.corpora._tables.cells import decoded, identity, words
from features.corpora._tables.layouts import wrong_root
from features.corpora._tables.text import published_rows
from features.corpus.adapter import CorpusFactory, Item, Published, Source
from features.errors import ManifestError

Labels = Literal["emotion", "sentiment"]
# by the corpus's name of a split: ours, and where its clips lie
SPLITS = MappingProxyType(
    {
        "train": ("train", "train_splits"),
        "dev": ("valid", "dev_splits_complete"),
        "test": ("test", "output_repeated_splits_test"),
    }
)
# Utterances by class, in the order of the authors' own models.
COUNTS = {
    "emotion": {
        "neutral": 6436, "surprise": 1636, "fear": 358, "sadness": 1002, "joy": 2308,
        "disgust": 361, "anger": 1607,
    },
    "sentiment": {"neutral": 6436, "positive": 3088, "negative": 4184},
}  # fmt: skip
BAD_CLIPS = MappingProxyType(
    {
        "train_dia125_utt3": "the published clip is corrupt (declare-lab/MELD issues 39 and 52)",
        "dev_dia110_utt7": "the clip was never published (declare-lab/MELD issues 22 and 27)",
    }
)
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
SOUND = (".wav", ".flac")
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


class _Folder(NamedTuple):
    """A folder of clips: its path below the root, and its file names by their lower-case form."""

    path: str
    names: Mapping[str, str]


class Meld:
    """The rows of the three tables, in their order, with or without their clips.

    Args:
        root: Folder that holds the tables.
        labels: `emotion` (seven classes) or `sentiment` (three).
        audio: True to use the clips, False for a corpus of text; None to use them if at least one
            of their three folders is there.
    """

    source: ClassVar[Source] = Source(
        title="MELD (Multimodal EmotionLines Dataset)",
        licence="GPL-3.0 for the tables; the series is broadcast material: research only",
        citation="Poria et al. 2019, arXiv 1810.02508",
        obtain="Download MELD.Raw.tar.gz as https://github.com/declare-lab/MELD says, for text "
        "alone only the three tables of its data/MELD.",
    )
    language: ClassVar[str] = "en"

    def __init__(
        self, root: Path, *, labels: Labels = "emotion", audio: bool | None = None
    ) -> None:
        self._root, self._wanted, self.variant = root, audio, labels
        self.label_map = {name: name for name in COUNTS[labels]}
        self.published = Published(
            13708,
            {"label": COUNTS[labels], "split": {"train": 9989, "valid": 1109, "test": 2610}},
            source="Poria et al. 2019 and the tables themselves",
            notes=("With audio 13,706: a clip of train is corrupt, one of dev unpublished",),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(self.label_map)

    def tables(self) -> Iterator[Path]:
        """Tables of the three splits."""
        for folder in ("", "*/"):
            yield from self._root.glob(f"{folder}*_sent_emo.csv")

    def items(self) -> Iterator[Item]:
        """All rows, those that cannot be used with a reason.

        Raises:
            ManifestError: If there is no table, or one without the columns that are needed.
        """
        tables = {
            split: self._find(f"{split}_sent_emo.csv", split, Path.is_file) for split in SPLITS
        }
        if not any(tables.values()):
            lacks = f"none of {[f'{split}_sent_emo.csv' for split in SPLITS]}"
            wanted = "train_sent_emo.csv"
            raise wrong_root(self._root, lacks, wanted, corpus="MELD", source=self.source)
        for split, table in tables.items():
            # Some lines are Windows-1252.
            rows = published_rows(table, COLUMNS, self.source, decode=decoded) if table else ()
            # Row 1 is the header.
            for number, (_, row) in enumerate(rows, 2):
                place = f"{split}_sent_emo.csv row {number}"
                try:
                    yield self._item(split, row, place)
                except ManifestError as error:
                    yield Item(place, None, "", fault=str(error))

    def _find(self, name: str, split: str, fits: Callable[[Path], bool]) -> Path | None:
        places = (self._root / name, self._root / split / name)
        return next((place for place in places if fits(place)), None)

    @functools.cached_property
    def _clips(self) -> dict[str, _Folder] | None:
        """Folders of clips by split; None without audio."""
        found = {
            split: self._find(folder, split, Path.is_dir) for split, (_, folder) in SPLITS.items()
        }
        use = any(found.values()) if self._wanted is None else self._wanted
        if not use:
            return None
        return {
            split: _Folder(SPLITS[split][1], {})
            if path is None
            else _Folder(
                path.relative_to(self._root).as_posix(),
                {file.name.lower(): file.name for file in path.iterdir()},
            )
            for split, path in found.items()
        }

    def _item(self, split: str, row: Mapping[str, str], place: str) -> Item:
        notes: list[str] = []
        dialogue, utterance, speaker, given = (
            identity(name, row[name], notes) or ""
            for name in ("Dialogue_ID", "Utterance_ID", "Speaker", self.variant.capitalize())
        )
        if not (dialogue.isdecimal() and utterance.isdecimal() and speaker):
            given = f"dialogue {dialogue!r}, utterance {utterance!r}, speaker {speaker!r}"
            return Item(place, None, "", fault=f"{given}; expected two numbers and a name")
        clip = f"dia{int(dialogue)}_utt{int(utterance)}"
        id, text = f"{split}_{clip}", words("Utterance", row["Utterance"], notes)
        audio = fault = excluded = None
        if self._clips is not None:
            excluded = BAD_CLIPS.get(id)
            audio, fault = (None, None) if excluded else self._audio(self._clips[split], clip)
        usable, label = not (fault or excluded), given if given in self.classes else None
        if usable and label is None:
            reason = f"label {given or 'none'} is not among the classes of {self.variant}"
            fault, excluded = (reason, None) if given else (None, reason)
        return Item(
            id=id,
            label=label if usable else None,
            speaker=speaker,
            audio=audio,
            text=text.translate(_QUOTES) if usable and text else None,
            dialogue=f"{split}_dia{int(dialogue)}",
            turn=int(utterance),
            split=SPLITS[split][0],
            fault=fault,
            excluded=excluded,
            notices=tuple(notes),
        )

    def _audio(self, folder: _Folder, clip: str) -> tuple[str | None, str | None]:
        """Path of the clip's sound below the root, or why there is none."""
        where, names = folder
        sound = next((names[clip + end] for end in SOUND if clip + end in names), None)
        if sound is None and f"{clip}.mp4" in names:
            video, wanted = f"{where}/{names[f'{clip}.mp4']}", f"{where}/{clip}.wav"
            return None, f"{video} has no sound file beside it: run ffmpeg -i {video} -vn {wanted}"
        return f"{where}/{sound or f'{clip}.wav'}", None  # a missing file is found out by `prepare`


build: CorpusFactory = Meld
