"""Means of predictions by speaker, dialogue or recording: a line each, for a terminal.

Each utterance counts the same, however long it is; those that failed count as failed alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from features.process.terminal import aligned
from pipeline.predict.records import Columns, Record

Key = Literal["speaker", "dialogue", "audio"]
UNKNOWN = "?"  # speaker of rows that name none


@dataclass
class _Group:
    """Sums over the rows of a group.

    Attributes:
        rows: Rows that were predicted.
        failed: Rows that were not.
        seconds: Their duration in all.
        sums: Sums of the predicted columns, in their order.
    """

    rows: int = 0
    failed: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=list)

    def add(self, row: Record, names: list[str]) -> None:
        """Add a row, of which these columns are predicted."""
        if row["error"]:
            self.failed += 1
            return
        self.rows += 1
        if row["start"] is not None and row["stop"] is not None:
            self.seconds += row["stop"] - row["start"]
        before = self.sums or [0.0] * len(names)
        self.sums = [a + row[name] for a, name in zip(before, names, strict=True)]


def means_table(columns: Columns, rows: Iterable[Record], key: Key) -> Iterator[str]:
    """Lines of a table: of each group its size, likeliest class, and means, in order of rows."""
    of = columns.outputs
    classes = [f"p_{name}" for name in of.classes]
    names = [*classes, *(f"v_{name}" for name in of.attributes)]
    groups: dict[str, _Group] = {}
    for row in rows:
        groups.setdefault(row[key] or UNKNOWN, _Group()).add(row, names)
    failed = any(group.failed for group in groups.values())
    title = [key, "utterances", "time", *(["class"] if classes else []), *names]
    lines = [[*title, *(["failed"] if failed else [])]]
    for name, group in groups.items():
        means = [each / group.rows for each in group.sums]
        line = [name, str(group.rows), str(timedelta(seconds=round(group.seconds)))]
        if classes:
            shares = means[: len(classes)]
            line.append(of.classes[shares.index(max(shares))] if shares else "")
        line += [f"{mean:.2f}" for mean in means] or [""] * len(names)
        lines.append([*line, *([str(group.failed)] if failed else [])])
    yield from aligned(lines)
