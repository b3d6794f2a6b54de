"""Reads and validates the CSV files of run folders; errors name the file and line.

A table is held by columns, about 130 bytes a row of four classes: of millions of rows, an object
for each cell would take ten times that.
"""

from __future__ import annotations

import csv
import itertools
import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import RunError
from features.files.reading import open_text

AGAIN = "run `dvc repro` to train it again"
TOLERANCE = 1e-3
"""Largest difference of the sum of K rounded probabilities from 1."""

_ROUNDING = 1e-6  # of probabilities written with nine significant digits, with a margin


_NUMBERS = ("p_", "t_", "y_", "v_", "g_", "m_")  # beginnings of columns of numbers
_CHUNK = 4096  # rows that are taken apart together


class Packed(Sequence[str]):
    """Texts of a column of numbers, which are nearly all different, without an object for each."""

    def __init__(self, cells: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("I")
        self.extend(cells)

    def extend(self, cells: Iterable[str]) -> None:
        """Add cells."""
        encoded = [cell.encode() for cell in cells]
        ends = itertools.accumulate(map(len, encoded), initial=len(self._text))
        self._ends.extend(itertools.islice(ends, 1, None))
        self._text += b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        begin = self._ends[places - 1] if places else 0
        return self._text[begin : self._ends[places]].decode()


@dataclass(frozen=True)
class Table:
    """A CSV file as text.

    Attributes:
        path: The file.
        header: Names of the columns.
        columns: Cells of each column, N of them.
        lines: Line of the file that each row ends on.
    """

    path: Path
    header: tuple[str, ...]
    columns: tuple[Sequence[str], ...]
    lines: Sequence[int]

    @classmethod
    def of(
        cls, path: Path, header: Sequence[str], rows: Iterable[tuple[Sequence[str], int]]
    ) -> Self:
        """A table of rows with as many cells as `header`, each with the line that it ends on."""
        columns: list[Packed | list[str]] = [
            Packed() if name.startswith(_NUMBERS) else [] for name in header
        ]
        lines, rest = array("I"), iter(rows)
        while chunk := list(itertools.islice(rest, _CHUNK)):
            lines.extend(line for _, line in chunk)
            for column, cells in zip(
                columns, zip(*(row for row, _ in chunk), strict=True), strict=True
            ):
                # Names and ids stand in many rows, seeds and folds: one copy is held of each.
                column.extend(cells if isinstance(column, Packed) else map(sys.intern, cells))
        return cls(path, tuple(header), tuple(columns), lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Rows, in order."""
        return zip(*self.columns, strict=True)

    def only_rows(self, rows: Sequence[int]) -> Self:
        """Some of the rows, by their numbers."""
        columns = [
            Packed(column[row] for row in rows)
            if isinstance(column, Packed)
            else [column[row] for row in rows]
            for column in self.columns
        ]
        return replace(self, columns=tuple(columns), lines=[self.lines[row] for row in rows])

    def column(self, name: str) -> Sequence[str]:
        """All cells of one column."""
        return self.columns[self.header.index(name)]

    def refuse(self, index: int, complaint: str) -> NoReturn:
        """Raise `RunError` about row `index`, naming file and line."""
        raise RunError(f"{self.path}, line {self.lines[index]}: {complaint}: {AGAIN}")

    def numbers(self, name: str) -> NDArray[np.float64]:
        """One column as floats; NaN where a cell is empty.

        Raises:
            RunError: If a cell is not a number.
        """
        cells = self.column(name)
        try:
            return np.array([float(cell or "nan") for cell in cells], np.float64)
        except ValueError:
            index = next(k for k, cell in enumerate(cells) if not _is_number(cell))
            self.refuse(index, f"{name} is {cells[index]!r}; expected a number")

    def only(self, name: str, allowed: Sequence[str]) -> None:
        """Raise `RunError` about the first cell of a column that is not among `allowed`."""
        for index, cell in enumerate(self.column(name)):
            if cell not in allowed:
                self.refuse(index, f"{name} is {cell!r}; expected one of {list(allowed)}")

    def indices(
        self, name: str, classes: Sequence[str], *, unknown: bool = False
    ) -> NDArray[np.int64]:
        """A column of class names as indices `[N]`.

        Args:
            name: Name of the column.
            classes: K names.
            unknown: Whether a cell may be empty, which is -1.

        Raises:
            RunError: If a cell names no class.
        """
        self.only(name, (*classes, "") if unknown else classes)
        index = {cell: k for k, cell in enumerate(classes)} | ({"": -1} if unknown else {})
        return np.array([index[cell] for cell in self.column(name)], np.int64)

    def probabilities(
        self, classes: Sequence[str], *, unknown: bool = False
    ) -> NDArray[np.float64]:
        """The columns `p_<class>`, `[N, K]`.

        Args:
            classes: K names.
            unknown: Whether the cells of all rows may be empty, which is NaN.

        Raises:
            RunError: If a row holds what is no distribution over the classes.
        """
        values = np.stack([self.numbers(f"p_{name}") for name in classes], axis=1)
        if unknown and np.isnan(values).all():
            return values
        index = no_distribution(values)
        if index is not None:
            self.refuse(index, f"probabilities {values[index].tolist()}; expected a sum of 1")
        return values

    def likeliest(self, probabilities: NDArray[np.float64], predictions: NDArray[np.int64]) -> None:
        """Raise `RunError` about the first row whose prediction is not its likeliest class."""
        index = not_likeliest(probabilities, predictions)
        if index is not None:
            self.refuse(index, "prediction is not the class of the highest probability")


def cells(values: Iterable[float]) -> list[str]:
    """Numbers as cells.

    >>> cells([0.5, float("nan")])
    ['0.5', '']
    """
    return ["" if math.isnan(value) else f"{value:.9g}" for value in values]


def no_distribution(probabilities: NDArray[np.float64]) -> int | None:
    """Index of the first row of `[N, K]` that is no distribution over the classes."""
    # Every comparison with NaN is false, so that NaN is refused too.
    right = ((probabilities >= 0) & (probabilities <= 1 + TOLERANCE)).all(1)
    right &= np.abs(probabilities.sum(1) - 1) <= TOLERANCE
    # The first False is the smallest.
    return None if right.all() else int(np.argmin(right))


def not_likeliest(probabilities: NDArray[np.float64], predictions: NDArray[np.int64]) -> int | None:
    """Index of the first row of `[N, K]` with a prediction that is not its likeliest class."""
    own = probabilities[np.arange(len(predictions)), predictions]
    right = own >= probabilities.max(1) - _ROUNDING
    return None if right.all() else int(np.argmin(right))


def read_csv(path: Path, header: Sequence[str] | None) -> Table:
    """Read a CSV file that has exactly these columns; None: any.

    Raises:
        RunError: If it cannot be read, or has other columns or ragged rows.
    """
    try:
        with open_text(path) as file:
            reader = csv.reader(file, strict=True)
            # Blank lines are skipped. A quoted cell may span lines: the number is that of the last.
            numbered = ((row, reader.line_num) for row in reader if row)
            found, _ = next(numbered, ((), 0))
            ragged: list[tuple[int, int]] = []  # cells and line of rows with more or fewer
            even = _even(numbered, len(found), ragged)
            table = Table.of(path, found, even)
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror}); {AGAIN}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no CSV file in UTF-8 ({error}); {AGAIN}") from error
    if header is None:
        header = table.header
    if table.header != tuple(header) or not table.header:
        missing = [name for name in header if name not in table.header]
        extra = [name for name in table.header if name not in header]
        raise RunError(
            f"{path}: columns {list(table.header)}; expected {list(header)} in this order "
            f"(missing {missing}, unexpected {extra}): {AGAIN}"
        )
    if ragged:
        given, line = ragged[0]
        raise RunError(f"{path}, line {line}: {given} cells; expected {len(header)}: {AGAIN}")
    return table


def _even(
    rows: Iterable[tuple[list[str], int]], width: int, ragged: list[tuple[int, int]]
) -> Iterator[tuple[list[str], int]]:
    """Rows of so many cells; of the first other one its number of cells and line is noted."""
    for row, line in rows:
        if len(row) == width:
            yield row, line
        elif not ragged:
            ragged.append((len(row), line))


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
