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


class Wish:
    """Whether somebody wants this process to stop.

    Attributes:
        asked: Whether they do.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler; after the first signal the next one ends the process at once."""
        self.asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def until_asked() -> Iterator[Wish]:
    """Turn SIGTERM into a wish while the context lasts; threads other than the main one cannot."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = signal.signal(signal.SIGTERM, wish.ask)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGTERM, before)
