"""Lists of utterances with a reason each: `rejected.csv`, `noticed.csv`, `seen.csv`.

A list is named by its file, which decides the heading of its second column.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from features.errors import ManifestError
from features.files.csv_text import unguarded, write_sheet
from features.files.records import check_unique, opened
from features.files.writing import replacing

REJECTED = "rejected.csv"  # utterances that cannot be used
NOTICED = "noticed.csv"  # beside it: utterances that are used, though cut or odd
SEEN = "seen.csv"  # in a cache folder: utterances that the checkpoint was trained on
_COLUMNS = {REJECTED: "reason", NOTICED: "notice", SEEN: "why"}
_VARYING = re.compile(r"\S*/\S+|\d+(?:\.\d+)?")  # paths and numbers within a reason
_REASONS = 5  # reasons on one line, at most


def write_reasons(path: Path, reasons: Mapping[str, str]) -> None:
    """Write a list of ids and reasons, in the given order."""
    with replacing(path) as temporary:
        # File names need not be UTF-8, and one that is not must not lose the others' reasons.
        header = ("id", _COLUMNS[path.name])
        write_sheet(temporary, header, reasons.items(), errors="backslashreplace")


def read_reasons(path: Path) -> dict[str, str]:
    """Reasons by id, as `write_reasons` wrote them.

    Raises:
        ManifestError: If the file is missing, cut short or foreign: to read it as empty would let
            through what it was written to stop.
    """
    header = ["id", _COLUMNS[path.name]]
    try:
        with io.TextIOWrapper(opened(path), encoding="utf-8") as file:
            first, *rows = csv.reader(file, strict=True)
        if first != header:
            raise ValueError(f"its first line is {first}")
        rows = [[unguarded(cell) for cell in row] for row in rows]
        check_unique((row[0] for row in rows if row), "its rows")
        return dict(rows)  # raises where a row has more or fewer than two cells
    except (ValueError, csv.Error, ManifestError) as error:
        raise ManifestError(
            f"{path} is no table of {','.join(header)} ({error}); expected the output of "
            f"extraction: delete {path.parent} and run `dvc repro`, or pull it again"
        ) from error


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Number of utterances by reason, grouped as in `group_reasons`."""
    grouped = group_reasons(("", reason) for reason in reasons)
    return {reason: len(ids) for reason, ids in grouped.items()}


def group_reasons(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Ids by reason, the most frequent first, from pairs of an id and its reason.

    Reasons that differ in numbers and paths alone are one; those are replaced by an ellipsis.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for id, reason in pairs:
        found.setdefault(_VARYING.sub("…", reason), []).append((id, reason))
    grouped = {
        next(iter(reasons)) if len(reasons) == 1 else shape: [id for id, _ in same]
        for shape, same in found.items()
        if (reasons := {reason for _, reason in same})
    }
    return dict(sorted(grouped.items(), key=lambda pair: -len(pair[1])))


def reasons_line(reasons: Iterable[str]) -> str:
    """The most frequent reasons on one line, each with the number of its utterances.

    >>> reasons_line(["has no text", "has 12 samples", "has 7 samples"])
    'has … samples (2), has no text (1)'
    """
    counted = [f"{reason} ({count})" for reason, count in count_reasons(reasons).items()]
    more = [f"and {len(counted) - _REASONS} other reasons"] if len(counted) > _REASONS else []
    return ", ".join(counted[:_REASONS] + more)
