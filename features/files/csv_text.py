"""Writes CSV files, and keeps spreadsheets from taking text in them for formulas.

To spreadsheets a cell that begins with = + - @ (or a tab or carriage return, which they skip) is a
formula, which may send data elsewhere (OWASP: CSV injection). Such text is written behind an
apostrophe, which marks text; numbers stay as they are. Our readers remove the apostrophe again, so
that every text is read as it was.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guarded(cell: object) -> object:
    """A cell as it is written; values other than text stay as they are.

    >>> guarded("=A1"), guarded("-3.5e-2"), guarded("'-x"), guarded("happy")
    ("'=A1", '-3.5e-2', "''-x", 'happy')
    """
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unguarded(cell: str) -> str:
    """Inverse of `guarded`, for text.

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
    """Write a UTF-8 file with line feeds as line ends on every system; `errors` as in `open`."""
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
