"""Text in CSV files that people open in a spreadsheet, where it must not be computed.

A cell that begins with = + - @ (or a tab or carriage return, which are skipped over) is a formula
to Excel and its like, and a formula may call out (OWASP, CSV injection). Such text gets an
apostrophe before it, which spreadsheets take as "this is text". Numbers stay as they are. Our own
readers take the apostrophe away again; every text comes back as it was.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guarded(cell: object) -> object:
    """A cell as it is written; what is no text is let through.

    >>> guarded("=A1"), guarded("-3.5e-2"), guarded("'-x"), guarded("happy")
    ("'=A1", '-3.5e-2', "''-x", 'happy')
    """
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unguarded(cell: str) -> str:
    """The inverse of `guarded`, of text.

    >>> unguarded("'=A1"), unguarded("-3.5e-2"), unguarded("''-x"), unguarded("'tis")
    ('=A1', '-3.5e-2', "'-x", "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_csv(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    errors: str | None = None,
) -> None:
    """Write a CSV file as UTF-8; lines end with a line feed on every system.

    Args:
        path: The file.
        header: Names of the columns.
        rows: Cells of each row.
        errors: What to do with text that is not UTF-8, as for `open`.
    """
    with path.open("w", encoding="utf-8", errors=errors, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_sheet(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    errors: str | None = None,
) -> None:
    """Write a CSV file for people, as `write_csv`, in which no cell is a formula."""
    write_csv(path, header, (list(map(guarded, row)) for row in rows), errors=errors)
