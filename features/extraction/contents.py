"""Index of the rows in a backbone's finished shards by content hash, in a file beside them.

The file holds the first 64 bits of each hash, sorted, and the row's place, and is mapped, so that
all processes share its pages. Whatever it says of a row is compared with the shard itself when the
row is used (`features.cache.rows`), the full hash among it. It is made again from the shards' heads
where it is missing, torn or of an older form; shards that it lacks are added, and those that are
gone or others are dropped. A new file replaces the old one as a whole and nobody locks it: of
several writers the last one wins, and what its file lacks is added by whoever opens it next.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from features.cache.frames import BLOCK_BYTES, crc32_of, identity, map_pages, raw
from features.cache.rows import RowTable, checks
from features.cache.shard import Row, SpooledRow, read_shard
from features.errors import CacheError, DamagedShardError
from features.files.reading import open_regular
from features.files.writing import replacing

NAME = "contents.index"
_HEAD = struct.Struct("<16sQQQ")  # form of the file, shards, rows, CRC-32 of what follows
_FORM = b"heronry index 1\n"
_PLACES = ("contents", "crc32", "frames", "offsets", "rounding")  # of datasets in a shard
_SHARD = np.dtype(
    [
        ("name", "S72"),
        ("inode", "<u8"),
        ("size", "<i8"),
        ("modified", "<i8"),
        ("places", "<i8", len(_PLACES)),
        ("width", "<i8"),  # of a frame; 0: bins
        ("dtype", "S8"),
    ]
)
_COLUMNS = ("<u8", "<u4", "<u4", "<u4")
Array = NDArray[Any]


class _Place(NamedTuple):
    """Place of a row: its shard, its number there, and the check of what the shard says of it."""

    table: RowTable
    number: int
    check: int


@dataclass(frozen=True)
class _Rows:
    """N rows in the order of their keys; the columns are of the types of `_COLUMNS`."""

    keys: Array
    shards: Array
    numbers: Array
    checks: Array

    @classmethod
    def sorted(cls, parts: Iterable[Sequence[Array]]) -> Self:
        """Columns of several parts as one, in order."""
        found = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        order = np.argsort(found[0], kind="stable")
        return cls(*(column[order] for column in found))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def columns(self) -> tuple[Array, ...]:
        """The columns in order."""
        return self.keys, self.shards, self.numbers, self.checks


class ContentIndex:
    """Rows of a backbone's finished shards by content hash; the file is brought up to date.

    Args:
        folder: Folder of the backbone in the work store.
    """

    def __init__(self, folder: Path) -> None:
        self._tables: list[RowTable] = []
        self._parts: list[_Rows] = []  # each longer than the next, so that they are few
        there, path = _shards(folder), folder / NAME
        with contextlib.suppress(OSError, ValueError):  # missing or torn: made again
            self._tables, rows = _load(path)
            self._parts = [rows]
        sound = [there.get(table.path) == table.identity for table in self._tables]
        known = {
            table.path for table, is_sound in zip(self._tables, sound, strict=True) if is_sound
        }
        new = [path for path in there if path not in known]
        if new or not all(sound):
            self._drop(np.array(sound, np.bool_))
            self._add(new)
            with contextlib.suppress(OSError):  # a store that cannot be written can be read
                self._save(path)

    def add(self, path: Path) -> None:
        """Add a shard that was just finished; the file follows when it is opened next."""
        self._add([path])

    def held(self, contents: Sequence[str], *, without: Collection[str] = ()) -> set[str]:
        """Those of some content hashes of which some shard seems to have a row.

        Args:
            contents: Content hashes.
            without: Names of shards, without the suffix, that do not count.
        """
        return set(self._places(contents, without))

    def rows(
        self, contents: Sequence[str], *, without: Collection[str] = ()
    ) -> Iterator[Row | SpooledRow]:
        """Rows of some content hashes, without ids, in the order in which they lie in the shards.

        Those of which no shard has a sound row are left out.
        """
        found = self._places(contents, without)
        for content, places in sorted(found.items(), key=lambda item: _key(item[1][0])):
            rows = (place.table.row(place.number, content, place.check) for place in places)
            row = next((row for row in rows if row is not None), None)
            if row is not None:
                yield row

    def _places(self, contents: Sequence[str], without: Collection[str]) -> dict[str, list[_Place]]:
        """Places of rows that begin with the same 64 bits, by content hash; none is empty."""
        found: dict[str, list[_Place]] = {}
        keys = _keys(contents)
        for rows in self._parts:
            first = np.searchsorted(rows.keys, keys, "left")
            last = np.searchsorted(rows.keys, keys, "right")
            for asked in np.flatnonzero(first < last).tolist():
                for at in range(int(first[asked]), int(last[asked])):
                    table = self._tables[int(rows.shards[at])]
                    if table.path.stem not in without:
                        place = _Place(table, int(rows.numbers[at]), int(rows.checks[at]))
                        found.setdefault(contents[asked], []).append(place)
        for places in found.values():
            places.sort(key=_key, reverse=True)  # which of several is taken must not vary
        return found

    def _drop(self, sound: NDArray[np.bool_]) -> None:
        """Forget shards that are gone or others, and their rows."""
        if sound.all():
            return
        numbers = np.cumsum(sound) - 1
        parts = [part.columns for part in self._parts]
        self._parts = []
        for keys, shards, *others in parts:
            kept = sound[shards]
            columns = (keys, numbers[shards].astype("<u4"), *others)
            self._parts.append(_Rows(*(column[kept] for column in columns)))
        self._tables = [table for table, keep in zip(self._tables, sound, strict=True) if keep]

    def _add(self, paths: Iterable[Path]) -> None:
        parts = []
        for path in paths:
            try:
                shard = read_shard(path)
                table, keys = RowTable.of(shard), _keys(shard.contents)
            except (DamagedShardError, ValueError):
                continue  # `WorkStore.has` removes it when it is asked for
            except CacheError:
                if path.exists():
                    raise
                continue  # removed just now
            numbers = np.arange(len(keys), dtype="<u4")
            parts.append((keys, np.full_like(numbers, len(self._tables)), numbers, checks(shard)))
            self._tables.append(table)
        if parts:
            self._parts.append(_Rows.sorted(parts))
        while len(self._parts) > 1 and len(self._parts[-2]) <= len(self._parts[-1]):
            self._merge(len(self._parts) - 2)

    def _merge(self, first: int) -> None:
        """Make one of the parts from `first` on."""
        self._parts[first:] = [_Rows.sorted(part.columns for part in self._parts[first:])]

    def _save(self, path: Path) -> None:
        """Write the file, and use it in place of what is held."""
        if not self._tables:
            path.unlink(missing_ok=True)
            return
        self._merge(0)
        parts = [raw(_table(self._tables)), *map(raw, self._parts[0].columns)]
        check = crc32_of(parts)
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                file.write(_HEAD.pack(_FORM, len(self._tables), len(self._parts[0]), check))
                for part in parts:
                    file.write(part)
            # Before others can replace it by theirs.
            self._parts = [_load(temporary)[1]]


def _key(place: _Place) -> tuple[Path, int]:
    return place.table.path, place.number


def _keys(contents: Sequence[str]) -> Array:
    """First 64 bits of each hash; a ValueError if one is no hash."""
    found = np.frombuffer(bytes.fromhex("".join(content[:16] for content in contents)), ">u8")
    if len(found) != len(contents):
        raise ValueError("a content hash is shorter than 64 bits")
    return found.astype("<u8")


def _shards(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Identity of each finished shard by path, in order."""
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".h5") and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # removed just now
                    found[folder / entry.name] = identity(entry.stat())
    return dict(sorted(found.items()))


def _table(tables: Sequence[RowTable]) -> Array:
    return np.array(
        [
            (
                table.path.name.encode(),
                *table.identity,
                tuple(table.places[name] for name in _PLACES),
                table.width[0] if table.width else 0,
                table.dtype.encode(),
            )
            for table in tables
        ],
        _SHARD,
    )


def _load(path: Path) -> tuple[list[RowTable], _Rows]:
    """Read the table of shards and map the rows.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is torn, damaged or of another form.
    """
    with open_regular(path) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise ValueError(f"{path} is truncated")
        form, shards, rows, check = _HEAD.unpack(head)
        lengths = [shards * _SHARD.itemsize, *(rows * np.dtype(kind).itemsize for kind in _COLUMNS)]
        if form != _FORM or size != _HEAD.size + sum(lengths):
            raise ValueError(f"{path} is truncated or of another form")
        if crc32_of(iter(lambda: file.read(BLOCK_BYTES), b"")) != check:
            raise ValueError(f"{path} is damaged")
        pages = map_pages(file.fileno(), size)
    ends = np.cumsum([_HEAD.size, *lengths]).tolist()
    parts = [pages[first:last] for first, last in itertools.pairwise(ends)]
    tables = [
        RowTable(
            path.parent / name.decode(),
            (inode, size, modified),
            dict(zip(_PLACES, places, strict=True)),
            dtype.decode(),
            (width,) if width else (),
        )
        for name, inode, size, modified, places, width, dtype in parts[0].view(_SHARD).tolist()
    ]
    columns = (part.view(kind) for part, kind in zip(parts[1:], _COLUMNS, strict=True))
    return tables, _Rows(*columns)
