"""SIGTERM as a wish: the work under way is finished and saved first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from features.errors import HeronryError


class StoppedError(HeronryError):
    """Work was asked to stop, and did; the same command goes on with it."""

    status = 128 + signal.SIGTERM


class Wish:
    """Whether somebody wants this process to stop.

    Args:
        launched: Whether a launcher passes signals on, so that the same one may come twice.

    Attributes:
        asked: Whether they do.
    """

    def __init__(self, *, launched: bool = False) -> None:
        self.asked, self._launched = False, launched

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler; after the first signal the next one ends the process at once.

        That of a launcher does not: it ends by itself those that take too long.
        """
        self.asked = True
        if not self._launched:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def until_asked(*, launched: bool = False) -> Iterator[Wish]:
    """Turn SIGTERM into a wish while the context lasts; threads other than the main one cannot."""
    wish = Wish(launched=launched)
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = signal.signal(signal.SIGTERM, wish.ask)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGTERM, before)
