"""Ctrl-C and SIGTERM from the first import on: one line that says what is kept, and how to go on.

While modules are imported, which takes seconds, the process ends at once: nothing has begun, and an
exception inside of an import may come out as another one. Afterwards either signal is an exception,
so that what is half done is put away; a second one ends the process at once. This module imports
nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn

_NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM came; not a `KeyboardInterrupt`, which libraries take for themselves.

    Attributes:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    """Of this process.

    Attributes:
        kept: What the line says of the command; empty: nobody listens.
        running: Whether all is imported.
        asked: Number of the signal that came; 0: none.
    """

    kept = ""
    running = False
    asked = 0


def listen(package: str, kept: Mapping[str, str]) -> None:
    """Begin to listen, if it is a command of `package` that `python -m` is about to import.

    Nothing happens where the package is imported by anything else.

    Args:
        package: Called from its `__init__`.
        kept: By module below it (empty: of all others): what is kept, and how to go on.
    """
    if sys.argv[:1] != ["-m"] or "-m" not in sys.orig_argv[:-1]:  # so while it is looked for
        return
    name = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    if name.partition(".")[0] != package:
        return
    _State.kept = kept.get(name.partition(".")[2], kept[""])
    for number in _NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background
            signal.signal(number, _on_signal)


def imported() -> None:
    """Everything is imported: from here on a signal is an exception."""
    _State.running = True
    if _State.kept:
        sys.unraisablehook = _on_unraisable


def ended() -> None:
    """The command is over: while Python itself ends, a signal ends the process at once again."""
    _State.running = False


def asked() -> int:
    """Number of the signal that came; 0: none."""
    return _State.asked


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _State.running and not _State.asked:
        _State.asked = number
        _say(number)
        _end_workers()
        raise Interrupted(number)
    _leave(number)


def _end_workers() -> None:
    """First of all: one that is still starting needs what this process is about to put away."""
    processes = sys.modules.get("multiprocessing")
    for process in () if processes is None else processes.active_children():
        process.terminate()


def _on_unraisable(what: Any) -> None:
    """An exception came where Python cannot raise one, such as in a finalizer."""
    if isinstance(what.exc_value, Interrupted):
        _leave(what.exc_value.number)
    if not _State.asked:  # else of workers that were ended
        sys.__unraisablehook__(what)


def _say(number: int) -> None:
    """The one line, of several processes from the first alone."""
    if os.environ.get("RANK", "0") == "0":
        line = f"{_NAMES[signal.Signals(number)]}: {_State.kept}\n"
        os.write(2, f"\n{line}".encode() if os.isatty(2) else line.encode())


def _leave(number: int) -> NoReturn:
    if not _State.asked:
        _say(number)
    os._exit(128 + number)
