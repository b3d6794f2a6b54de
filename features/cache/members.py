"""Which shards of a union's cache belong to which member: `members.csv`, beside the shards.

A union's shards are those of its members, numbered one member after the other, with the members'
own ids. What a shard of the member `a` calls `<id>` is `a/<id>` in the union.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from features.errors import CacheError
from features.files.csv_text import write_csv
from features.files.reading import open_text

MEMBERS = "members.csv"
_HEADER = ("member", "shards")


def write_members(folder: Path, members: Sequence[tuple[str, int]]) -> None:
    """Write the names of members and the numbers of their shards, in order."""
    write_csv(folder / MEMBERS, _HEADER, members)


def prefixes(folder: Path) -> list[str] | None:
    """What the ids of each shard begin with in the union; None for a cache of no union.

    Raises:
        CacheError: If the file is malformed.
    """
    path = folder / MEMBERS
    if not path.is_file():
        return None
    try:
        with open_text(path) as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != _HEADER:
            raise ValueError(f"its first line is {header}")
        return [f"{name}/" for name, count in rows for _ in range(int(count))]
    except (ValueError, csv.Error) as error:
        raise CacheError(
            f"{path} is no table of {','.join(_HEADER)} ({error}); expected the output of "
            f"extraction: delete {folder} and run `dvc repro`, or pull it again"
        ) from error
