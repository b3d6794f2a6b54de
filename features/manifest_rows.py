"""The rows of manifest.jsonl, parsed whenever they are asked for: a corpus may exceed the memory.

One pass over the file when it is read (`ManifestRows.scan`) parses every row, so that a malformed
one is told of at once, and keeps next to nothing: where each 64th row begins. That an id occurs
twice is seen from sorted 64-bit hashes, which are let go afterwards; where two are equal, the ids
themselves are looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import ManifestError
from features.records import opened, row_parser
from features.utterance import Utterance, leaves_root, path_under

STRIDE = 64  # rows; one that is asked for by its number is at most so many lines from a known byte


@dataclass(frozen=True, eq=False)
class ManifestRows(Sequence[Utterance]):
    """Utterances that stay in their file. It is opened for each use and may travel to processes.

    Attributes:
        path: `manifest.jsonl`.
        rows: How many.
        starts: `[ceil(rows / STRIDE)]`, the byte at which each `STRIDE`-th row begins.
        shared: Hashes that more than one id has: seldom any, if no id occurs twice.
        outside: Number of the first row whose audio path leaves the corpus root, if there is one.
        root: What the audio paths lie under; None: they are given as they are in the file.
    """

    path: Path
    rows: int
    starts: NDArray[np.int64]
    shared: frozenset[int]
    outside: int | None = None
    root: Path | None = None

    @classmethod
    def scan(cls, path: Path) -> Self:
        """Look at every row once.

        Raises:
            ManifestError: If the file cannot be read or a row is malformed, naming the line.
        """
        parse = row_parser(path, Utterance)
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

    def located(self, root: Path) -> Self:
        """The same with absolute audio paths under `root`.

        Raises:
            ManifestError: If a path leaves the root.
        """
        if self.outside is not None:
            path_under(root, self[self.outside])
        return dataclasses.replace(self, root=root)

    def suspects(self) -> Iterator[Utterance]:
        """Those whose id may occur twice, among which are all that do."""
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
                if self.root is not None:  # in place: a copy takes longer than parsing the row
                    object.__setattr__(utterance, "audio", path_under(self.root, utterance))
                yield utterance
        if number < last:
            raise ManifestError(
                f"{self.path} ends after {number} lines and had {self.rows} when it was read; "
                "expected that nobody changes it meanwhile: start again"
            )


def _hash(id: str) -> int:
    """64 bits, others in each process."""
    return hash(id)


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values that occur more than once; sorts in place."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
