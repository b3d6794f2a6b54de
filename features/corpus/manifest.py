"""Utterances and labels of a corpus: two JSON Lines tables joined by id.

Extraction reads `data/<corpus>/utterances/manifest.jsonl`, training `labels/labels.jsonl` there, so
that relabelling a corpus, or splitting it in another way, leaves every cached feature valid.

A manifest may exceed the memory: when it is read, one pass over the file validates every row and
keeps only where each 64th row begins (`ManifestRows`); rows are parsed again when asked for.
Repeated ids are found by sorted 64-bit hashes; where two hashes are equal, the ids are compared.
"""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.arguments import problems
from features.corpus.adapter import MAPPINGS, REPEATED
from features.corpus.frozen import check_outside, frozen, share_texts
from features.corpus.utterance import (
    SHARD_BYTES,
    SHARD_LIMITS,
    Member,
    Utterance,
    check_id,
    check_time,
    leaves_root,
    path_under,
    without_usual_bytes,
)
from features.errors import ManifestError
from features.files.records import (
    check_unique,
    opened,
    read_json,
    read_rows,
    row_parser,
    write_json,
    write_rows,
)

USED = ("train", "valid", "test")
UNLABELLED = "unlabelled"  # split that is predicted and never scored
SPLITS = (*USED, "unused", UNLABELLED)
UTTERANCES_FORMAT = "heronry-utterances"
UTTERANCES_VERSION = 1
_AGAIN = "Expected what `prepare` wrote: run `dvc repro` to prepare the corpus again."
_TEXTS = ("label", "speaker", "dialogue", "gender", "sentence", "session", "text", "audio", "asr")
STRIDE = 64  # one of so many rows has its position in the file kept


@dataclass(frozen=True)
class Label:
    """Label of an utterance, its splits, and the groups that must not cross them.

    Fields are those of `features.corpus.adapter.Item`; text, audio and span are for the report.

    Attributes:
        seconds: Duration of the utterance; None without audio.
        splits: One of `SPLITS` per fold of the protocol.
    """

    id: str
    label: str | None
    speaker: str
    dialogue: str | None = None
    turn: int | None = None
    gender: str | None = None
    sentence: str | None = None
    session: str | None = None
    seconds: float | None = None
    text: str | None = None
    audio: str | None = None
    start: float | None = None
    stop: float | None = None
    splits: tuple[str, ...] = ()
    asr: str | None = None
    votes: Mapping[str, float] | None = field(default=None, hash=False)
    votes_outside: float | None = None
    secondary: Mapping[str, float] | None = field(default=None, hash=False)
    values: Mapping[str, float] | None = field(default=None, hash=False)

    @property
    def class_name(self) -> str:
        """Its class, for what is about classes alone.

        Raises:
            ManifestError: If it has none.
        """
        if self.label is None:
            raise ManifestError(
                f"utterance {self.id!r} has no class; expected one, as this is about classes: "
                "leave such utterances out"
            )
        return self.label

    def __post_init__(self) -> None:
        check_id(self.id)
        for name in _TEXTS:
            value = getattr(self, name)
            filled = name in ("label", "speaker")
            if not (isinstance(value, str) and (value or not filled)) and (
                value is not None or name == "speaker"
            ):
                raise ManifestError(f"utterance {self.id!r}: {name} is {value!r}; expected text")
        for name in ("start", "stop", "seconds"):
            check_time(self.id, name, getattr(self, name))
        if self.turn is not None and type(self.turn) is not int:
            raise ManifestError(
                f"utterance {self.id!r}: turn is {self.turn!r}; expected an integer"
            )
        wrong = sorted(set(self.splits) - set(SPLITS))
        if wrong:
            raise ManifestError(
                f"utterance {self.id!r}: split {wrong[0]!r}; expected one of {SPLITS}"
            )
        self._check_targets()
        share_texts(self, ("id", "splits", *REPEATED))  # ids are those of predictions too

    def _check_targets(self) -> None:
        """Freeze the mappings; refuse a row without any target, unless it is not to have one."""
        for name in MAPPINGS:
            given = getattr(self, name)
            if given is not None:
                held = frozen(f"utterance {self.id!r}: {name}", given, counts=name != "values")
                object.__setattr__(self, name, held)
        check_outside(f"utterance {self.id!r}: votes_outside", self.votes_outside)
        targets = (self.label, self.votes, self.values)
        if all(target is None for target in targets) and set(self.splits) != {UNLABELLED}:
            raise ManifestError(
                f"utterance {self.id!r} has neither a class, votes nor values; expected one of "
                f"them, or the split {UNLABELLED!r}"
            )


@dataclass(frozen=True)
class Manifest(Sequence[Utterance]):
    """Utterances of a corpus, in order, and the size of its shards.

    Attributes:
        corpus: Name in params.yaml.
        utterances: Utterances in corpus order; new ones are appended, so that old shards stay
            valid. A tuple, or `ManifestRows` of a file.
        kind: Plug-in of the corpus.
        generated: Whether the audio lies beside the manifest rather than under a user's root.
        shard_seconds: A shard of an audio backbone closes once it holds this many seconds.
        shard_characters: A shard of a text backbone closes once it holds this many characters.
        shard_bytes: A shard closes, too, once its features have about so many bytes.
        members: Members of a union, in order; none of any other corpus.
    """

    corpus: str
    utterances: Sequence[Utterance]
    kind: str = "manifest"
    generated: bool = False
    shard_seconds: float = 3600.0
    shard_characters: int = 500_000
    shard_bytes: int = SHARD_BYTES
    members: tuple[Member, ...] = ()

    def __post_init__(self) -> None:
        rows = self.utterances
        if self.members and sum(member.rows for member in self.members) != len(rows):
            raise ManifestError(
                f"corpus {self.corpus!r}: {len(rows)} utterances; expected those of its members, "
                f"{[member.rows for member in self.members]}"
            )
        doubtful: Iterable[Utterance] = rows
        if isinstance(rows, ManifestRows):
            doubtful = rows.suspects()  # all rows were checked when the file was read
        else:
            for each in rows:
                each.check_hashed()
        check_unique((u.id for u in doubtful), f"corpus {self.corpus!r}")
        for part in (self, *self.members):
            for name in SHARD_LIMITS:
                if not (value := getattr(part, name)) > 0:
                    raise ManifestError(f"{name} is {value}; expected a number above 0")

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def __getitem__(self, index: Any) -> Any:
        return self.utterances[index]

    @property
    def parts(self) -> tuple[Member, ...]:
        """Members of a union; of any other corpus, all of it as one."""
        whole = (self.shard_seconds, self.shard_characters, self.shard_bytes)
        return self.members or (Member("", self.kind, self.generated, len(self), *whole),)

    def located(self, root: Path | Mapping[str, Path]) -> Self:
        """The same utterances with absolute audio paths under `root`, of a union by member.

        Raises:
            ManifestError: If a path leaves the root.
        """
        rows = self.utterances
        if isinstance(rows, ManifestRows):
            return dataclasses.replace(self, utterances=rows.located(root))
        found = (dataclasses.replace(each, audio=path_under(root, each)) for each in rows)
        return dataclasses.replace(self, utterances=tuple(found))

    def hearing(self, words: Callable[[Utterance], str | None]) -> Self:
        """The same utterances with other recognised words.

        Args:
            words: What `asr` of an utterance becomes; called again whenever it is read.
        """
        rows = self.utterances
        if isinstance(rows, ManifestRows):
            return dataclasses.replace(self, utterances=dataclasses.replace(rows, words=words))
        found = (dataclasses.replace(each, asr=words(each)) for each in rows)
        return dataclasses.replace(self, utterances=tuple(found))

    def write(self, folder: Path) -> None:
        """Write `corpus.json` and `manifest.jsonl` into `folder`."""
        head = {"format": UTTERANCES_FORMAT, "version": UTTERANCES_VERSION}
        head |= {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("utterances", "members")
        }
        if self.members:
            members = map(dataclasses.asdict, self.members)
            head["members"] = [without_usual_bytes(member) for member in members]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "corpus.json", without_usual_bytes(head))
        write_rows(folder / "manifest.jsonl", self.utterances)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and validate a manifest; its rows stay in the file.

        Raises:
            ManifestError: If a file is missing or malformed, naming the line.
        """
        path = folder / "corpus.json"
        head = read_json(path)
        found = (head.pop("format", None), head.pop("version", None))
        if found != (UTTERANCES_FORMAT, UTTERANCES_VERSION):
            raise ManifestError(
                f"{path} says format and version {found}; expected "
                f"{(UTTERANCES_FORMAT, UTTERANCES_VERSION)}: run `dvc repro` to prepare it again"
            )
        wrong = problems(cls, head, "", skip=["utterances"])
        if wrong:
            raise ManifestError("\n".join(f"{path}: {line}" for line in wrong) + f"\n{_AGAIN}")
        rows = ManifestRows.scan(folder / "manifest.jsonl")
        head["members"] = tuple(Member(**member) for member in head.get("members", ()))
        return cls(utterances=rows, **head)


def read_labels(folder: Path) -> list[Label]:
    """Read and validate `labels.jsonl` of `data/<corpus>/labels`."""
    labels = list(read_rows(folder / "labels.jsonl", Label))
    check_unique((label.id for label in labels), str(folder / "labels.jsonl"))
    return labels


@dataclass(frozen=True, eq=False)
class ManifestRows(Sequence[Utterance]):
    """Utterances that stay in their file, which is opened for each use. Can be pickled.

    Attributes:
        path: `manifest.jsonl`.
        rows: Number of rows.
        starts: `[ceil(rows / STRIDE)]`, the byte at which each `STRIDE`-th row begins.
        shared: Hashes that more than one id has: rarely any, if no id occurs twice.
        outside: Number of the first row with an audio path out of the corpus root, or None.
        root: Folder to prepend to the audio paths, or those of a union's members; None leaves the
            paths as they are in the file.
        words: What `asr` of an utterance becomes; None leaves it as it is in the file.
    """

    path: Path
    rows: int
    starts: NDArray[np.int64]
    shared: frozenset[int]
    outside: int | None = None
    root: Path | Mapping[str, Path] | None = None
    words: Callable[[Utterance], str | None] | None = None

    @classmethod
    def scan(cls, path: Path) -> Self:
        """Parse and validate every row once.

        Raises:
            ManifestError: If the file cannot be read or a row is malformed, naming the line.
        """
        parse = row_parser(path, Utterance)
        # Arrays: an integer takes 8 bytes there, and 40 in a list.
        starts, hashes, offset, outside = array("q"), array("q"), 0, None
        with opened(path) as file:
            for number, line in enumerate(file):
                utterance = parse(number + 1, line)
                try:
                    utterance.check_hashed()
                except ManifestError as error:
                    raise ManifestError(f"{path}, line {number + 1}: {error}") from error
                if number % STRIDE == 0:
                    starts.append(offset)
                offset += len(line)
                hashes.append(_hash(utterance.id))
                if outside is None and utterance.audio and leaves_root(utterance.audio):
                    outside = number
        shared = frozenset(_repeated(np.frombuffer(hashes, np.int64)).tolist())
        return cls(path, len(hashes), np.array(starts, np.int64), shared, outside)

    def located(self, root: Path | Mapping[str, Path]) -> Self:
        """The same with absolute audio paths under `root`, of a union by member.

        Raises:
            ManifestError: If a path leaves the root.
        """
        if self.outside is not None:
            path_under(root, self[self.outside])
        return dataclasses.replace(self, root=root)

    def suspects(self) -> Iterator[Utterance]:
        """Utterances with an id that may occur twice: all that do, and hash collisions."""
        if self.shared:
            yield from (utterance for utterance in self if _hash(utterance.id) in self.shared)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Utterance]:
        return self._between(0, self.rows)

    def __getitem__(self, index: Any) -> Any:
        wanted = range(self.rows)[index]
        if isinstance(wanted, int):
            return next(self._between(wanted, wanted + 1))
        if wanted.step == 1:
            return tuple(self._between(wanted.start, wanted.stop))
        return tuple(self[number] for number in wanted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _between(self, first: int, last: int) -> Iterator[Utterance]:
        if first >= last:
            return
        parse, number = row_parser(self.path, Utterance), first
        with opened(self.path) as file:
            file.seek(int(self.starts[first // STRIDE]))
            for line in itertools.islice(file, first % STRIDE, first % STRIDE + last - first):
                number += 1
                utterance = parse(number, line)
                if self.root is not None:
                    # In place although frozen: a copy takes longer than parsing the row.
                    object.__setattr__(utterance, "audio", path_under(self.root, utterance))
                if self.words is not None:
                    object.__setattr__(utterance, "asr", self.words(utterance))
                yield utterance
        if number < last:
            raise ManifestError(
                f"{self.path} ends after {number} lines and had {self.rows} when it was read; "
                "expected that nobody changes it meanwhile: start again"
            )


def _hash(id: str) -> int:
    """64-bit hash of an id, valid in this process only."""
    return hash(id)


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values that occur more than once; sorts in place."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
