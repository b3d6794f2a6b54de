"""Text for a terminal: progress bars, lines that are redrawn, aligned columns.

Outside of a terminal (a log, a pipe) progress is a plain line every `LINE_SECONDS`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINE_SECONDS = 30.0  # between two plain lines about the same work
REDRAW_SECONDS = 0.2  # between two states of a line in a terminal
_UP = "\x1b[{}F"  # to the first column, so many lines above
_CLEAR = "\x1b[0J"  # from there to the end of the screen


def progress(items: Iterable[Item], *, total: int, what: str, unit: str) -> Iterator[Item]:
    """Iterate over `items`, and show the progress on standard error.

    >>> list(progress([1, 2], total=2, what="counting", unit="number"))
    [1, 2]
    """
    log = LiveLines()
    if log.live:
        yield from tqdm(items, total=total, desc=what, unit=f" {unit}", leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= log.every and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / rate
            log.show(0, f"{what}: {done}/{total} {unit}s, {rate:.1f} a second, {left:.0f} s left")


class LiveLines:
    """Status lines of concurrent work, one for each key.

    In a terminal the lines of running work are redrawn in place; the last line of finished work
    moves above them and stays. Outside of a terminal each text is printed as a line of its own.

    Args:
        stream: Stream to write to; None: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self._lines: dict[int, str] = {}
        self._drawn = 0

    @property
    def every(self) -> float:
        """Seconds that a caller should leave between two lines about the same work."""
        return REDRAW_SECONDS if self.live else LINE_SECONDS

    def show(self, key: int, text: str, *, done: bool = False) -> None:
        """Show a line in place of the former one of `key`; `done` if it is the last one."""
        if not self.live:
            print(text, file=self.stream, flush=True)
            return
        above = f"{text}\n" if done else ""
        self._lines[key] = text
        if done:
            del self._lines[key]
        width = shutil.get_terminal_size().columns - 1  # a wrapped line would count as two
        below = "".join(f"{line[:width]}\n" for _, line in sorted(self._lines.items()))
        back = _UP.format(self._drawn) if self._drawn else ""
        self.stream.write(f"{back}{_CLEAR}{above}{below}")
        self.stream.flush()
        self._drawn = len(self._lines)


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell, but for the last cells.

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


def size(count: float) -> str:
    """Bytes as text, in powers of 1,000.

    >>> size(1_500_000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
