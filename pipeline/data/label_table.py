"""Labels as columns, some 30 bytes an utterance, of which processes may share one copy.

A training reads a few labels at a time. Objects of all of them take ten times the memory, in every
process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.corpus.manifest import Label
from features.process.shared import SharedArrays

HELD = (
    *("label", "speaker", "dialogue", "turn", "gender", "session", "splits"),
    *("votes", "votes_outside", "secondary", "values"),
)
"""Fields that training reads besides the id; the others are None in the labels of a table."""
Places = NDArray[np.int64]


class LabelTable(Sequence[Label]):
    """Labels of which each is made when it is asked for; without text, audio and times.

    Args:
        arrays: `[N]` each: `id` in UTF-8; by field, the number of each label's value, where there
            are several.
        values: By field: what each number stands for.
        rows: Which of the N these are, and in which order; None: all.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        values: Mapping[str, Sequence[Any]],
        rows: Places | None = None,
    ) -> None:
        self.arrays, self.values, self._rows = arrays, values, rows
        # What all labels have in common is not looked up.
        self._same = _ABSENT | {name: of[0] for name, of in values.items() if len(of) == 1}
        self._other = [(name, of) for name, of in values.items() if len(of) > 1]

    @classmethod
    def write(cls, folder: Path, labels: Sequence[Label]) -> Self:
        """Write the arrays of some labels, at least one, and return their table."""
        columns = {name: _numbered(getattr(label, name) for label in labels) for name in HELD}
        arrays = {name: codes for name, (codes, values) in columns.items() if len(values) > 1}
        arrays["id"] = np.array([label.id.encode() for label in labels], np.bytes_)
        values = {name: values for name, (_, values) in columns.items()}
        return cls(SharedArrays.write(folder, arrays), values)

    @property
    def rows(self) -> Places:
        """Places of the labels in the whole table."""
        return np.arange(len(self)) if self._rows is None else self._rows

    def part(self, rows: Places) -> Self:
        """Some of the rows, by their places in the whole table, whose arrays are shared."""
        return type(self)(self.arrays, self.values, rows)

    def __len__(self) -> int:
        return len(self.arrays["id"] if self._rows is None else self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.part(self.rows[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self) if self._rows is None else self._rows[index]
        label = object.__new__(Label)  # the fields were checked when they were read
        held = vars(label)
        held |= self._same
        held["id"] = self.arrays["id"][row].decode()
        for name, values in self._other:
            held[name] = values[self.arrays[name][row]]
        return label

    def in_split(self, fold: int, name: str) -> Self:
        """Those of one split of one fold."""
        wanted = np.array([splits[fold] == name for splits in self.values["splits"]], bool)
        rows = self.rows
        if len(wanted) == 1:
            return self.part(rows if wanted[0] else rows[:0])
        return self.part(rows[wanted[self.arrays["splits"][rows]]])


def in_split(labels: Sequence[Label], fold: int, name: str) -> Sequence[Label]:
    """Labels of one split of one fold, in their order."""
    if isinstance(labels, LabelTable):
        return labels.in_split(fold, name)
    return [label for label in labels if label.splits[fold] == name]


_ABSENT = dict.fromkeys(field.name for field in fields(Label))


def _numbered(column: Iterable[Any]) -> tuple[NDArray[Any], list[Any]]:
    """Numbers of a column's values in order of appearance, and the values."""
    numbers: dict[Any, int] = {}
    values: list[Any] = []
    codes = []
    for value in column:
        # Numbers by name are compared by what they hold, in order.
        key = tuple(value.items()) if isinstance(value, Mapping) else value
        if key not in numbers:
            numbers[key] = len(values)
            values.append(value)
        codes.append(numbers[key])
    return np.array(codes, np.min_scalar_type(len(values))), values
