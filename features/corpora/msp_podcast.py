"""MSP-Podcast: turns of English podcasts, each rated by five people or more.

Corpus of the Odyssey 2024 and Interspeech 2025 (SERNC) challenges, which score macro-F1 over
eight classes. Read from any release that has `labels_consensus.csv`; releases differ in size, so
there are no published counts to compare with.

Reference: Lotfian and Busso 2019, doi 10.1109/TAFFC.2017.2736999.
Licence: by agreement with The University of Texas at Dallas: research only.
Layout: `Audios/MSP-PODCAST_0001_0008.wav` (or `Audio/`): podcast 0001, turn 0008;
`Labels/labels_consensus.csv` (older releases: `labels_concensus.csv`; also `label/`);
`Transcripts/MSP-PODCAST_0001_0008.txt`, where the release has them.

Decisions: a turn with the SpkrID Unknown counts as a speaker of its own, `unknown_<id>`, so that a
leak of that speaker cannot be detected; `disclaimer` counts them. The podcast is the `session` and
not the `dialogue`, since turns of one podcast are neither adjacent nor known to stay within one
split. Test3 of the challenges has no labels: features can be extracted of its clips, and they are
listed as rejected.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from features.corpora._tables.cells import identity, words
from features.corpora._tables.layouts import wrong_root
from features.corpora._tables.rows import SPLIT_NAMES
from features.corpora._tables.text import published_rows
from features.corpus.adapter import CorpusFactory, Item, Source
from features.errors import ManifestError
from features.files.reading import read_regular
from features.files.root_paths import held

EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
}
NO_CLASS = {"O": "other", "X": "no agreement"}
VARIANTS = {"eight_class": "ASHUFDCN", "four_class": "NHSA"}  # letters in the order of the classes
TEST_SETS = ("Test1", "Test2", "Test3")
SPLITS = {"Train": "train", "Development": "valid", "Validation": "valid"}
UNLABELLED = "no label published"
TABLES = ("labels_consensus.csv", "labels_concensus.csv")
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
# Groups: id, podcast.
_NAME = re.compile(r"(MSP-PODCAST_([^\W_]+)_[\w-]+)(?:\.wav)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    letter: str
    speaker: str
    gender: str
    split: str


class MspPodcast:
    """The rows of the consensus table in their order, then clips that have no row.

    Args:
        root: Folder of the release.
        labels: `eight_class`: all but O (other) and X (no agreement). `four_class`: neutral, happy,
            sad and angry; the others are left out as well.
        test_sets: Official test sets that are tested on; the others are `unused`.
    """

    source: ClassVar[Source] = Source(
        title="MSP-Podcast",
        licence="by agreement with The University of Texas at Dallas, research only",
        citation="Lotfian and Busso 2019, doi 10.1109/TAFFC.2017.2736999",
        obtain="Request it at https://lab-msp.com/MSP/MSP-Podcast.html.",
    )

    def __init__(
        self,
        root: Path,
        *,
        labels: Literal["eight_class", "four_class"] = "eight_class",
        test_sets: Sequence[Literal["Test1", "Test2", "Test3"]] = ("Test1",),
    ) -> None:
        self._root = root
        self.variant: str = labels
        self.label_map: Mapping[str, str | None] = {
            letter: EMOTIONS[letter] if letter in VARIANTS[labels] else None
            for letter in (*EMOTIONS, *NO_CLASS)
        }
        tests = {name: "test" if name in test_sets else "unused" for name in TEST_SETS}
        self._splits = {name.lower(): split for name, split in (SPLITS | tests).items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(EMOTIONS[letter] for letter in VARIANTS[self.variant])

    @property
    def disclaimer(self) -> str | None:
        """Number of utterances of unknown speakers, and the consequence; None if all are known."""
        scored = [row for row in self._rows if self.label_map.get(row.letter)]
        unknown = sum(_is_unknown(row.speaker) for row in scored)
        if not unknown:
            return None
        return (
            f"{unknown} of {len(scored)} labelled utterances have an unknown speaker. Each counts "
            "as a speaker of its own: whether that speaker is in another split as well cannot be "
            "checked, and intervals over speakers take them for independent."
        )

    def tables(self) -> Iterator[Path]:
        """Consensus labels and transcripts."""
        for name in (*TABLES, "*.txt"):
            yield from self._root.glob(f"*/{name}")

    def items(self) -> Iterator[Item]:
        """All rows and clips, those that cannot be used with a reason.

        Raises:
            ManifestError: If a folder, the table or one of its columns is missing.
        """
        audio, texts = self._folder("audios", "audio"), self._texts
        listed = set()
        # Row 1 is the header.
        for number, row in enumerate(self._rows, 2):
            match = _NAME.fullmatch(row.name)
            if match is None:
                reason = f"FileName {row.name!r}; expected one such as MSP-PODCAST_0001_0008.wav"
                yield Item(f"row {number}", None, row.speaker, fault=reason)
                continue
            listed.add(match[1])
            yield self._item(row, match, audio.name, texts.get(match[1]))
        for path in sorted(audio.glob("MSP-PODCAST_*.wav")):
            place = f"{audio.name}/{path.name}"
            if _NAME.fullmatch(path.stem) is None:
                yield Item(place, None, "", fault="the name is not MSP-PODCAST_0001_0008.wav")
            elif path.stem not in listed:
                text, fault, _ = _read(texts.get(path.stem))
                yield Item(
                    id=path.stem,
                    label=None,
                    speaker="",
                    audio=place,
                    text=text,
                    fault=fault,
                    excluded=UNLABELLED,
                )

    @functools.cached_property
    def _rows(self) -> tuple[_Row, ...]:
        folder = self._folder("labels", "label")
        path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
        if path is None:
            found = held(folder, *TABLES)
            raise ManifestError(f"{folder} holds no {' or '.join(TABLES)} but {found}; add it")
        rows = []
        for place, row in published_rows(path, COLUMNS, self.source, skip_spaces=True):
            try:
                rows.append(_Row(*(identity(name, row[name]) or "" for name in COLUMNS)))
            except ManifestError as error:
                raise ManifestError(f"{place}: {error}") from error
        return tuple(rows)

    @property
    def _texts(self) -> dict[str, Path]:
        folder = self._folders.get("transcripts")
        return {} if folder is None else {p.stem: p for p in folder.glob("*.txt") if p.is_file()}

    @functools.cached_property
    def _folders(self) -> dict[str, Path]:
        return {path.name.lower(): path for path in self._root.iterdir() if path.is_dir()}

    def _folder(self, *names: str) -> Path:
        for name in names:
            if name in self._folders:
                return self._folders[name]
        lacks = f"no folder {' or '.join(map(str.title, names))}"
        raise wrong_root(self._root, lacks, *names, corpus="MSP-Podcast", source=self.source)

    def _item(self, row: _Row, match: re.Match[str], folder: str, transcript: Path | None) -> Item:
        id, podcast = match.groups()
        text, fault, notices = _read(transcript)
        named = row.split.lower()
        split = self._splits.get(named) or {"train": "train", "valid": "valid"}.get(
            SPLIT_NAMES.get(named, "")
        )
        if split is None:
            names = ", ".join((*SPLITS, *TEST_SETS))
            fault = f"Split_Set {row.split!r}; expected one of {names}"
        label, excluded = self.label_map.get(row.letter), None
        known = EMOTIONS | NO_CLASS
        if not row.letter:
            excluded = UNLABELLED
        elif row.letter not in known:
            fault = fault or f"EmoClass {row.letter!r}; expected one of {', '.join(known)}"
        elif label is None:
            kind = f"{row.letter} ({known[row.letter]})"
            excluded = f"label {kind} is not among the classes of {self.variant}"
        return Item(
            id=id,
            label=None if fault or excluded else label,
            speaker=f"unknown_{id}" if _is_unknown(row.speaker) else row.speaker,
            audio=f"{folder}/{id}.wav",
            text=text,
            gender=row.gender.lower() if row.gender.lower() in ("male", "female") else None,
            split=split,
            session=f"MSP-PODCAST_{podcast}" if podcast.isdecimal() else None,
            fault=fault,
            excluded=excluded,
            notices=notices,
        )


def _is_unknown(speaker: str) -> bool:
    return speaker.lower() in ("", "unknown")


def _read(path: Path | None) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Transcript, its fault, and notices of corrections."""
    notes: list[str] = []
    try:
        text = words("text", "" if path is None else read_regular(path).decode("utf-8-sig"), notes)
    except (OSError, UnicodeDecodeError):
        return None, "the transcript cannot be read as UTF-8 text", ()
    except ManifestError as error:
        return None, f"the transcript: {error}", ()
    return text and " ".join(text.split()), None, tuple(notes)


build: CorpusFactory = MspPodcast
