"""One line a training: redrawn in place in a terminal, written now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

UP = "\x1b[{}F"  # to the first column, so many lines above
CLEAR = "\x1b[0J"  # from there to the end of the screen
REDRAW_SECONDS = 0.2
LINE_SECONDS = 30.0


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
