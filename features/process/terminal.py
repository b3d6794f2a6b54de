"""Progress of long work: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINE_SECONDS = 30.0  # between two lines about the same work, outside of a terminal


def progress(items: Iterable[Item], *, total: int, what: str, unit: str) -> Iterator[Item]:
    """Pass `items` through, telling on standard error how far it has come.

    >>> list(progress([1, 2], total=2, what="counting", unit="number"))
    [1, 2]
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=f" {unit}", leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_SECONDS and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / rate
            line = f"{what}: {done}/{total} {unit}s, {rate:.1f} a second, {left:.0f} s left\n"
            sys.stderr.write(line)
            sys.stderr.flush()


UP = "\x1b[{}F"  # to the first column, so many lines above
CLEAR = "\x1b[0J"  # from there to the end of the screen
REDRAW_SECONDS = 0.2


class LiveLines:
    """Lines by key, below what is done.

    Outside of a terminal each text is a line of its own. In a terminal the lines of the work under
    way are redrawn together; one that is done moves above them and stays.

    Args:
        stream: Where to write; None: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self._lines: dict[int, str] = {}
        self._drawn = 0

    @property
    def every(self) -> float:
        """Seconds between two lines about the same work that are worth showing."""
        return REDRAW_SECONDS if self.live else LINE_SECONDS

    def show(self, key: int, text: str, *, done: bool = False) -> None:
        """Replace the line of that key."""
        if not self.live:
            self.stream.write(f"{text}\n")
            self.stream.flush()
            return
        above = f"{text}\n" if done else ""
        self._lines[key] = text
        if done:
            del self._lines[key]  # until it is shown again
        width = shutil.get_terminal_size().columns - 1  # a wrapped line would count as two
        below = "".join(f"{line[:width]}\n" for _, line in sorted(self._lines.items()))
        back = UP.format(self._drawn) if self._drawn else ""
        self.stream.write(f"{back}{CLEAR}{above}{below}")
        self.stream.flush()
        self._drawn = len(self._lines)


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Cells in columns as wide as their widest, but for the last cell of each row.

    >>> aligned([["a", "bc"], ["def", "g"]])
    ['a    bc', 'def  g']
    """
    table = [list(row) for row in rows]
    widths: dict[int, int] = {}
    for row in table:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell))
    return [
        "  ".join([*(c.ljust(widths[i]) for i, c in enumerate(row[:-1])), row[-1]]).rstrip()
        for row in table
    ]
