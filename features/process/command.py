"""How every command of `stages` and `pipeline` fails: a message and a status, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from features.errors import HeronryError
from features.process import interrupts
from features.process.machine_errors import machine_error
from features.settings.locations import check_folder


def run_command(command: Callable[[], object]) -> None:
    """Run a command to its end, and exit.

    A user's error is a message and exit status 1, and so is what the machine refuses
    (`features.process.machine_errors`); Ctrl-C is one line and 130, SIGTERM one line and 143.
    Anything else is a bug and keeps its traceback.
    """
    failure: HeronryError | None = None
    try:
        interrupts.imported()
        try:
            if "--help" not in sys.argv:
                check_folder()
            command()
        finally:
            interrupts.ended()
    except HeronryError as error:
        failure = error
    except BaseException as error:
        # Whatever it is once a signal came: libraries may have put theirs in its place.
        if not interrupts.asked():
            failure = machine_error(error)
            if failure is None:
                raise
    # Here all that the exception held on to has been let go: workers have ended.
    if interrupts.asked():
        sys.exit(128 + interrupts.asked())
    if failure is not None:
        sys.stderr.write(f"error: {failure}\n")
        sys.exit(failure.status)
