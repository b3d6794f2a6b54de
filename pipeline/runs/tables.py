"""Reads and validates the CSV files of run folders; errors name the file and line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from features.errors import RunError
from features.files.reading import open_text

AGAIN = "run `dvc repro` to train it again"
TOLERANCE = 1e-3
"""Largest difference of the sum of K rounded probabilities from 1."""

_ROUNDING = 1e-6  # of probabilities written with nine significant digits, with a margin


@dataclass(frozen=True)
class Table:
    """A CSV file as text: `rows` with as many cells as `header`, and the line that each ends on."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> tuple[str, ...]:
        """All cells of one column."""
        index = self.header.index(name)
        return tuple(row[index] for row in self.rows)

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
            numbered = [(tuple(row), reader.line_num) for row in reader if row]
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror}); {AGAIN}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no CSV file in UTF-8 ({error}); {AGAIN}") from error
    found = numbered[0][0] if numbered else ()
    if header is None:
        header = found
    if found != tuple(header) or not found:
        missing = [name for name in header if name not in found]
        extra = [name for name in found if name not in header]
        raise RunError(
            f"{path}: columns {list(found)}; expected {list(header)} in this order "
            f"(missing {missing}, unexpected {extra}): {AGAIN}"
        )
    rows, lines = zip(*numbered, strict=True)
    table = Table(path, tuple(header), rows[1:], lines[1:])
    for index, row in enumerate(table.rows):
        if len(row) != len(header):
            table.refuse(index, f"{len(row)} cells; expected {len(header)}")
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
