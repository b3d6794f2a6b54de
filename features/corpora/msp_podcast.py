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
listed as rejected, or predicted and never scored (`predict_unlabelled`). Release 2.0 is said to
lack the audio of MSP-PODCAST_1909_1017, which its table lists: `allow_rejected: 1` goes on.

Targets beside the class, which is the release's own and never counted from the votes: `attributes`
are the release's means of the raters, on 1 to 7; `votes` come from the raters' table,
`labels_detailed.csv` or `.json` (`_votes/msp.py`).
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
from features.corpora._votes.msp import ATTRIBUTES, OTHER, SCALE, read_msp_ratings, scaled
from features.corpora._votes.msp import TABLES as RATINGS
from features.corpora._votes.policies import (
    Fate,
    NoAgreement,
    Other,
    check_policies,
    outside_classes,
    without_agreement,
)
from features.corpora._votes.tally import Tally, tally
from features.corpus.adapter import CorpusFactory, Item, Source, Target
from features.corpus.manifest import UNLABELLED as NEVER_SCORED
from features.corpus.ratings import Rating
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
UNMATCHED = 0.1  # share of clips in one table alone above which the tables are of two releases
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
    values: Mapping[str, float] | None
    fault: str | None


class MspPodcast:
    """The rows of the consensus table in their order, then clips that have no row.

    Args:
        root: Folder of the release.
        labels: `eight_class`: all but O (other) and X (no agreement). `four_class`: neutral, happy,
            sad and angry; the others are left out as well.
        test_sets: Official test sets that are tested on; the others are `unused`.
        targets: What is asked for of classes, votes and attributes.
        no_agreement: What is done with X: `drop`: left out. `train`: trained on for votes and
            attributes, and not tested on. `keep`: tested on as well.
        other: What is done with O, and with letters outside the label map: `drop`: left out.
            `class`: O is a class of its own, `other`. `outside`: kept for votes and attributes.
        predict_unlabelled: Whether clips of Test3 without a label are predicted and never scored,
            as the split `unlabelled`.
    """

    source: ClassVar[Source] = Source(
        title="MSP-Podcast",
        licence="by agreement with The University of Texas at Dallas, research only",
        citation="Lotfian and Busso 2019, doi 10.1109/TAFFC.2017.2736999",
        obtain="Request it at https://lab-msp.com/MSP/MSP-Podcast.html.",
    )
    language: ClassVar[str] = "en"
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes", "attributes")
    scales: ClassVar[Mapping[str, tuple[float, float]]] = dict.fromkeys(ATTRIBUTES, SCALE)

    def __init__(
        self,
        root: Path,
        *,
        labels: Literal["eight_class", "four_class"] = "eight_class",
        test_sets: Sequence[Literal["Test1", "Test2", "Test3"]] = ("Test1",),
        targets: tuple[Target, ...] = ("classes",),
        no_agreement: NoAgreement = "drop",
        other: Other = "drop",
        predict_unlabelled: bool = False,
    ) -> None:
        self._root, self._targets, self._predicts = root, targets, predict_unlabelled
        self._no_agreement, self._other = no_agreement, other
        self.policies = check_policies(targets, no_agreement=no_agreement, other=other)
        self.variant: str = labels
        self.label_map: dict[str, str | None] = {
            letter: EMOTIONS[letter] if letter in VARIANTS[labels] else None
            for letter in (*EMOTIONS, *NO_CLASS)
        }
        if other == "class":
            self.label_map |= {"O": OTHER}
        tests = {name: "test" if name in test_sets else "unused" for name in TEST_SETS}
        self._splits = {name.lower(): split for name, split in (SPLITS | tests).items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        ninth = (OTHER,) if self._other == "class" else ()
        return (*(EMOTIONS[letter] for letter in VARIANTS[self.variant]), *ninth)

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
        """Consensus labels, transcripts, and raters' tables where these are asked for."""
        for name in (*TABLES, "*.txt", *(RATINGS if self._rated else ())):
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
                predicted = self._predicts and "test3" in path.stem.lower()
                yield Item(
                    id=path.stem,
                    label=None,
                    speaker=f"unknown_{path.stem}" if predicted else "",
                    audio=place,
                    text=text,
                    split=NEVER_SCORED if predicted else None,
                    fault=fault,
                    excluded=None if predicted else UNLABELLED,
                )

    def ratings(self) -> Iterator[Rating]:
        """What each rater said of a clip, if votes or attributes are asked for."""
        yield from self._said

    @property
    def warnings(self) -> Sequence[str]:
        """Clips in one of the tables alone, and what else is odd in that of the raters."""
        return self._oddities if self._rated else ()

    @property
    def _rated(self) -> bool:
        return bool({"votes", "attributes"} & set(self._targets))

    @functools.cached_property
    def _oddities(self) -> list[str]:
        if not self._said:
            return []
        rated = {rating.id for rating in self._said}
        labelled = {row.name.removesuffix(".wav") for row in self._rows if row.letter}
        lines = [
            f"{len(alone)} clips are in the {one} table and not in the {other} one, such as "
            f"{min(alone)}"
            for one, other, alone in (
                ("raters'", "consensus", rated - labelled),
                ("consensus", "raters'", labelled - rated),
            )
            if alone
        ]
        apart = len(rated ^ labelled) / len(rated | labelled)
        if apart > UNMATCHED:
            raise ManifestError(
                f"the consensus and the raters' table have {apart:.0%} of their clips alone: "
                f"{'; '.join(lines)}; expected at most {UNMATCHED:.0%}, as tables of one release"
            )
        known = {*EMOTIONS.values(), OTHER}
        strange = [r for r in self._said if r.label is not None and r.label not in known]
        if strange:
            lines.append(
                f"{len(strange)} ratings name an emotion that is not one of the corpus, such as "
                f"{strange[0].label!r} of {strange[0].id}: they count as outside the classes"
            )
        if self._doubled:
            lines.append(
                f"{len(self._doubled)} ratings are the second of a rater for a clip, such as "
                f"{self._doubled[0]}: the first counts"
            )
        return lines

    @functools.cached_property
    def _doubled(self) -> list[str]:
        return []

    @functools.cached_property
    def _said(self) -> tuple[Rating, ...]:
        if not self._rated:
            return ()
        folder = self._folder("labels", "label")
        path = next((folder / name for name in RATINGS if (folder / name).is_file()), None)
        if path is None:
            if "votes" not in self._targets:
                return ()  # the means of the attributes are in the consensus table
            raise ManifestError(
                f"{folder} holds no {' or '.join(RATINGS)} but {held(folder, *RATINGS)}; expected "
                "the raters' table, since votes are asked for: add it, or leave them out of targets"
            )
        found: dict[tuple[str, str], Rating] = {}
        for place, rating in read_msp_ratings(path, self.source):
            if found.setdefault((rating.id, rating.rater), rating) is not rating:
                self._doubled.append(f"{rating.id} ({place})")
        return tuple(found.values())

    @functools.cached_property
    def _tallies(self) -> Mapping[str, Tally]:
        found = tally(self._said, self.classes) if "votes" in self._targets else {}
        _ = self._oddities  # refuses tables of two releases
        return found

    @functools.cached_property
    def _rows(self) -> tuple[_Row, ...]:
        folder = self._folder("labels", "label")
        path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
        if path is None:
            found = held(folder, *TABLES)
            raise ManifestError(f"{folder} holds no {' or '.join(TABLES)} but {found}; add it")
        rows = []
        valued = ATTRIBUTES if "attributes" in self._targets else {}
        columns = (*COLUMNS, *valued.values())
        for place, row in published_rows(path, columns, self.source, skip_spaces=True):
            try:
                name, letter, speaker, gender, split = (
                    identity(column, row[column]) or "" for column in COLUMNS
                )
            except ManifestError as error:
                raise ManifestError(f"{place}: {error}") from error
            values, fault = _values(row, valued)
            rows.append(_Row(name, letter, speaker, gender, split, values, fault))
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
        fault = fault or row.fault
        named = row.split.lower()
        split = self._splits.get(named) or {"train": "train", "valid": "valid"}.get(
            SPLIT_NAMES.get(named, "")
        )
        if split is None:
            names = ", ".join((*SPLITS, *TEST_SETS))
            fault = f"Split_Set {row.split!r}; expected one of {names}"
        label, fate = self.label_map.get(row.letter), Fate()
        known = EMOTIONS | NO_CLASS
        if not row.letter and self._predicts and named == "test3":
            split = NEVER_SCORED
        elif not row.letter:
            fate = Fate(UNLABELLED)
        elif row.letter not in known:
            fault = fault or f"EmoClass {row.letter!r}; expected one of {', '.join(known)}"
        elif label is None:
            kind = f"{row.letter} ({known[row.letter]})"
            reason = f"label {kind} is not among the classes of {self.variant}"
            if row.letter == "X":
                fate = without_agreement(self._no_agreement, reason)
            else:
                fate = outside_classes(self._other, reason)
        votes = self._tallies.get(id, Tally())
        return Item(
            id=id,
            label=None if fault or fate.excluded else label,
            speaker=f"unknown_{id}" if _is_unknown(row.speaker) else row.speaker,
            audio=f"{folder}/{id}.wav",
            text=text,
            gender=row.gender.lower() if row.gender.lower() in ("male", "female") else None,
            split=split,
            session=f"MSP-PODCAST_{podcast}" if podcast.isdecimal() else None,
            fault=fault,
            excluded=fate.excluded,
            notices=notices,
            votes=votes.votes,
            votes_outside=votes.votes_outside,
            secondary=votes.secondary,
            values=row.values,
            train_only=fate.train_only,
        )


def _values(
    row: Mapping[str, str], columns: Mapping[str, str]
) -> tuple[Mapping[str, float] | None, str | None]:
    """Known values of the attributes of a row, and a fault of them."""
    try:
        cells = {name: scaled(column, row[column]) for name, column in columns.items()}
    except ManifestError as error:
        return None, str(error)
    return {name: value for name, value in cells.items() if value is not None} or None, None


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
