"""Finishes and saves the current work on SIGTERM, instead of ending at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from features.errors import HeronryError


class StoppedError(HeronryError):
    """Work was stopped by a signal; the same command resumes it."""

    status = 128 + signal.SIGTERM


class StopRequest:
    """Whether this process was asked to stop.

    Args:
        launched: Whether a launcher passes signals on, so that the same one may arrive twice.

    Attributes:
        asked: Whether SIGTERM has arrived.
    """

    def __init__(self, *, launched: bool = False) -> None:
        self.asked, self._launched = False, launched

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler; a second signal ends the process at once.

        Not so under a launcher, which by itself ends processes that take too long.
        """
        self.asked = True
        if not self._launched:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def stop_requests(*, launched: bool = False) -> Iterator[StopRequest]:
    """Handle SIGTERM as a `StopRequest` within this context; only the main thread can."""
    request = StopRequest(launched=launched)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, request.ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
