"""Reads single rows of a shard by their places in the file: no HDF5, no map, nothing kept open.

Rows copied out of scattered shards would otherwise have a file opened, parsed and mapped for each.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features.cache.frames import StoredFrames, crc32_of, raw
from features.cache.shard import Row, Shard, SpooledRow
from features.errors import CacheError, DamagedShardError

HELD_BYTES = 16 << 20  # a row above that stays in its file, and is read in blocks
# What a shard says of a row beside its id: content, first frame, the one behind the last, CRC-32 of
# the frames, rounding.
_RECORD = struct.Struct("<64sqqId")
_PARTS = (("contents", 64, 64), ("offsets", 8, 16), ("crc32", 4, 4), ("rounding", 8, 8))
_TYPES = {"offsets": "<i8", "crc32": "<u4", "rounding": "<f8"}


@dataclass(frozen=True)
class RowTable:
    """Places of a shard's datasets in its file.

    Attributes:
        path: File.
        identity: Inode, size and modification time of the file that the places were read from.
        places: First byte of each dataset.
        dtype: Stored dtype.
        width: Shape of one frame: `(D,)`, or `()` for bins.
    """

    path: Path
    identity: tuple[int, int, int]
    places: Mapping[str, int]
    dtype: str
    width: tuple[int, ...]

    @classmethod
    def of(cls, shard: Shard) -> Self:
        """The table of a shard that was read.

        Raises:
            DamagedShardError: If its datasets are of other types than heronry writes.
        """
        types = {name: getattr(shard, name).dtype.str for name in _TYPES}
        if types != _TYPES or any(len(content) != 64 for content in shard.contents):
            raise DamagedShardError(
                f"{shard.path} has datasets of the types {types}, or contents that are no SHA-256; "
                f"expected {_TYPES}, and 64 digits: remove it"
            )
        stored = shard.stored
        return cls(shard.path, stored.identity, shard.places, stored.dtype.name, stored.shape[1:])

    def row(self, index: int, content: str, check: int) -> Row | SpooledRow | None:
        """Row number `index`, without its id, if the file holds it undamaged.

        Args:
            index: Number of the row.
            content: Content hash that it must have.
            check: What `checks` gave for the row.

        Returns:
            None if the file is gone or another, or the row is damaged: its frames are compared with
            the shard's own CRC-32 of them.
        """
        try:
            return self._row(index, content, check)
        except CacheError:
            return None

    def _row(self, index: int, content: str, check: int) -> Row | SpooledRow | None:
        with self._frames(0, 0).open() as file:
            record = b"".join(
                os.pread(file, length, self.places[name] + index * step)
                for name, step, length in _PARTS
            )
            if len(record) != _RECORD.size or zlib.crc32(record) != check:
                return None
            held, first, last, crc32, rounding = _RECORD.unpack(record)
            if held != content.encode():
                return None
            stored = self._frames(first, last)
            if stored.bytes > HELD_BYTES:
                sound = crc32_of(stored.blocks()) == crc32
                return SpooledRow("", content, stored, rounding) if sound else None
            frames = np.empty(stored.shape, stored.dtype)
            stored.read(file, 0, frames)
        return Row("", content, frames, rounding) if zlib.crc32(raw(frames)) == crc32 else None

    def _frames(self, first: int, last: int) -> StoredFrames:
        kind = np.dtype(self.dtype)
        start = self.places["frames"] + first * kind.itemsize * int(np.prod(self.width, dtype=int))
        return StoredFrames(self.path, start, kind, (last - first, *self.width), self.identity)


def checks(shard: Shard) -> NDArray[np.uint32]:
    """`[N]` CRC-32 of what a shard says of each row, beside its id."""
    offsets = shard.offsets.tolist()
    rows = zip(
        shard.contents,
        *(offsets[:-1], offsets[1:]),
        *(shard.crc32.tolist(), shard.rounding.tolist()),
        strict=True,
    )
    records = (_RECORD.pack(content.encode(), *others) for content, *others in rows)
    return np.fromiter(map(zlib.crc32, records), np.uint32, len(shard.ids))
