"""Runs a command of `stages` or `pipeline`: errors become a message and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

from features.errors import HeronryError, MachineError
from features.process import interrupts
from features.process.machine_errors import machine_error
from features.settings.locations import check_folder

# What is answered in any folder: questions, and what a shell asks of `heronry` to complete a word.
_ANYWHERE = {"--help", "--version", "--show-completion", "--install-completion"}
_COMPLETION = "_HERONRY_COMPLETE"


def run_command(command: Callable[[], object]) -> None:
    """Run a command, and exit.

    Exit status 1 and a message for errors of users and of the machine
    (`features.process.machine_errors`) and for packages that are not installed, 130 and one line
    for Ctrl-C, 143 and one line for SIGTERM. Anything else is a bug and keeps its traceback.
    """
    failure: HeronryError | None = None
    try:
        interrupts.imported()
        try:
            if _ANYWHERE.isdisjoint(sys.argv) and _COMPLETION not in os.environ:
                check_folder()
            command()
        finally:
            interrupts.ended()
    except HeronryError as error:
        failure = error
    except BaseException as error:
        # After a signal any exception is its result: libraries may raise their own instead.
        if not interrupts.asked():
            failure = _missing_package(error) or machine_error(error)
            if failure is None:
                raise
    # Outside of the handler, where the exception no longer holds frames: workers have ended.
    if interrupts.asked():
        sys.exit(128 + interrupts.asked())
    if failure is not None:
        sys.stderr.write(f"error: {failure}\n")
        sys.exit(failure.status)


def _missing_package(error: BaseException) -> MachineError | None:
    """The message for a package that is not installed; None for any other error.

    A module that is missing from a package that is there is a bug.
    """
    package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if not package or find_spec(package) is not None:
        return None
    return MachineError(
        f"the package {package} is not installed; expected all that this command needs: "
        "`make install` in a checkout, or install heronry without --no-deps"
    )
