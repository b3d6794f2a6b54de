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
_LINES = {
    re.compile(r"Running stage '(?:.*:)?(.+)':"): "== {} ...",
    re.compile(r"(?:Stage )?'(?:.*:)?(.+)' didn't change, skipping"): "== {}: unchanged",
    re.compile(
        r"Stage '(?:.*:)?(.+)' is cached - skipping run.*"
    ): "== {}: outputs of an earlier run with the same inputs",
}


class StageLines(logging.Filter):
    """Passes warnings and errors, but for those on missing outputs, and a line for each stage."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is printed; a stage's is rewritten."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            return not text.startswith(_MISSING)
        for pattern, line in _LINES.items():
            if match := pattern.fullmatch(text):
                record.msg, record.args = line.format(match[1]), ()
                return True
        return text.startswith("== ")  # rewritten by the filter of another handler


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
