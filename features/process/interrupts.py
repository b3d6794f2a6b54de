"""Handles Ctrl-C and SIGTERM: one line that says what is kept and how to resume, no traceback.

While modules are imported, which takes seconds, a signal ends the process at once: nothing has
begun, and imports may turn an exception into another one. Later a signal raises an exception, so
that unfinished work is cleaned up; a second signal ends the process at once. This module imports
nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

PYTHONS = ((3, 11), (3, 12), (3, 13))  # that the dependencies support
_NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not a `KeyboardInterrupt`, which libraries catch.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    """State of this process.

    Attributes:
        kept: What the line says about the command; empty if `listen` did not apply.
        running: Whether everything is imported.
        asked: Number of the signal that was received; 0: none.
    """

    kept = ""
    running = False
    asked = 0


def listen(package: str, kept: Mapping[str, str], script: str = "") -> None:
    """Install the handlers, if a command of `package` is about to be imported.

    Does nothing where the package is imported in another way than by `python -m` or the script.

    Args:
        package: Package whose `__init__` calls this.
        kept: What is kept and how to resume, by module of the package; "" for all other modules.
        script: Console command of the package, if it has one.

    Raises:
        SystemExit: If the dependencies do not support this version of Python.
    """
    program = sys.argv[0] if sys.argv else ""
    module = ""
    # Python sets argv[0] to "-m" while it looks for the module.
    if program == "-m":
        _refuse_other_pythons()
        if "-m" in sys.orig_argv[:-1]:
            name = sys.orig_argv[sys.orig_argv.index("-m") + 1]
            program, _, module = name.partition(".")
    elif program.rpartition(os.sep)[2] == script and script:
        _refuse_other_pythons()
        program = package
    if program != package:
        return
    _State.kept = kept.get(module, kept[""])
    for number in _NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored: a background process
            signal.signal(number, _on_signal)


def say(kept: str) -> None:
    """Replace what the line says about the command, such as of one that keeps nothing."""
    if _State.kept:
        _State.kept = kept


def _refuse_other_pythons() -> None:
    """End with a message under another Python, before an import of a dependency fails obscurely.

    pip refuses by `requires-python`; this is for a checkout that another Python runs.
    """
    if sys.version_info[:2] not in PYTHONS:
        *others, last = (f"{major}.{minor}" for major, minor in PYTHONS)
        expected = f"{', '.join(others)} or {last}"
        sys.exit(
            f"error: this is Python {sys.version.split()[0]}; expected {expected}: "
            "make run PYTHON=python3.12, then source .venv/bin/activate"
        )


@contextmanager
def importing() -> Iterator[None]:
    """Import modules within a command: until they are there, a signal ends the process at once."""
    before, _State.running = _State.running, False
    try:
        yield
    finally:
        _State.running = before


def imported() -> None:
    """Note that everything is imported: from now on a signal raises an exception."""
    _State.running = True
    if _State.kept:
        sys.unraisablehook = _on_unraisable


def ended() -> None:
    """Note that the command has ended: while Python exits, a signal ends the process at once."""
    _State.running = False


def asked() -> int:
    """Number of the signal that was received; 0: none."""
    return _State.asked


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _State.running and not _State.asked:
        _State.asked = number
        _say(number)
        _end_workers()
        raise Interrupted(number)
    _leave(number)


def _end_workers() -> None:
    """End the workers before the clean-up, which removes what a starting worker needs."""
    processes = sys.modules.get("multiprocessing")
    for process in () if processes is None else processes.active_children():
        process.terminate()


def _on_unraisable(what: Any) -> None:
    """Handle a signal's exception where Python cannot raise one, such as in a finalizer."""
    if isinstance(what.exc_value, Interrupted):
        _leave(what.exc_value.number)
    if not _State.asked:  # otherwise a result of ending the workers
        sys.__unraisablehook__(what)


def _say(number: int) -> None:
    """Print the line, in the first of several training processes only."""
    if os.environ.get("RANK", "0") == "0":
        line = f"{_NAMES[signal.Signals(number)]}: {_State.kept}\n"
        # Not through sys.stderr, whose buffer the interrupted code may be writing to.
        os.write(2, f"\n{line}".encode() if os.isatty(2) else line.encode())


def _leave(number: int) -> NoReturn:
    if not _State.asked:
        _say(number)
    os._exit(128 + number)  # at once: leaving Python waits for threads and runs clean-up
