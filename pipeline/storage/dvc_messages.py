"""`dvc exp run` with one line a stage in place of DVC's messages; warnings and errors stay.

DVC warns of each output that the workspace does not have yet ("No file hash info found for ...
It won't be created"), and writes a line for each lock file: a page in all, before anything runs.
This is DVC's own command with filters on its log, so that arguments, terminal and signals are as
ever. If DVC changes its messages, its own lines appear again, and nothing else changes.
"""

from __future__ import annotations

import logging
import re
import sys

LOGGERS = ("dvc", "dvc_data", "dvc_objects")
_MISSING = "No file hash info found"
# A stage that ends so has written its own error, which DVC's would move out of sight: it failed, or
# had Ctrl-C or SIGTERM. One that was killed has written nothing.
_STAGE_FAILED = re.compile(r"failed to run: .*, exited with (1|130|143)", re.DOTALL)
_LINES = {
    re.compile(r"Running stage '(?:.*:)?(.+)':"): "== {} ...",
    re.compile(r"(?:Stage )?'(?:.*:)?(.+)' didn't change, skipping"): "== {}: unchanged",
    re.compile(
        r"Stage '(?:.*:)?(.+)' is cached - skipping run.*"
    ): "== {}: outputs of an earlier run with the same inputs",
    re.compile(r"Pulling data for stage: '(?:.*:)?(.+)'"): "== {}: download of what was pushed ...",
    re.compile(r"Unable to pull data for stage: '(?:.*:)?(.+)'"): "== {}: not on the remote",
}


class StageLines(logging.Filter):
    """Passes a line for each stage, and DVC's own warnings and errors.

    Left out are warnings of missing outputs, and that a stage failed, which told why itself.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is printed; a stage's is rewritten."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            return not (text.startswith(_MISSING) or _of_stage(record))
        for pattern, line in _LINES.items():
            if match := pattern.fullmatch(text):
                record.msg, record.args = line.format(match[1]), ()
                return True
        return text.startswith("== ")  # rewritten by the filter of another handler


def _of_stage(record: logging.LogRecord) -> bool:
    """Whether a record is about an exception that a stage's exit status caused."""
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and not _STAGE_FAILED.fullmatch(str(error)):
        error = error.__cause__
    return error is not None


def main() -> None:
    """Run DVC with the process's arguments."""
    from dvc.cli import main as dvc  # type: ignore[import-untyped]
    from dvc.ui import ui  # type: ignore[import-untyped]

    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(StageLines())
    # DVC's lines outside of its log, such as "Reproducing experiment"; errors are still printed.
    ui.enable = lambda: None
    sys.exit(dvc(sys.argv[1:]))
