"""Writes the shards of a cache folder, each sealed: complete, flushed to disk, read-only.

Equal rows give equal bytes: one session, canonical order, no timestamps, a fixed HDF5 file version,
and nothing in the attributes about the host, the date or library versions.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from features.cache.frames import StoredFrames, crc32_of, raw
from features.cache.shard import (
    DEVIATION,
    FORMAT,
    VERSION,
    Row,
    Shard,
    SpooledRow,
    checksum_of,
)
from features.errors import CacheError
from features.files.writing import make_folder, replacing, seal
from features.stream import StreamSpec

HDF5_VERSION = "v110"  # oldest and newest allowed, so that newer libraries write the same bytes
BLOCK = 1 << 20  # values that are compared at a time
Array = NDArray[Any]


class CacheWriter:
    """Rounds rows to the stored dtype and writes shards.

    Args:
        spec: Width and kind of the rows.
        provenance: Backbone and settings that computed the rows; written into every shard.
        dtype: Stored dtype: float16, float32 or int16.
    """

    def __init__(self, *, spec: StreamSpec, provenance: Mapping[str, Any], dtype: str) -> None:
        self.spec, self.provenance, self.dtype = spec, provenance, dtype

    def round(self, id: str, content: str, values: Array) -> Row:
        """A row in the stored dtype, with its rounding error.

        Raises:
            CacheError: If a value does not fit, such as one above 65,504 in float16.
        """
        given = torch.from_numpy(np.ascontiguousarray(values))
        stored = given.to(getattr(torch, self.dtype))  # torch rounds many times faster than numpy
        # In blocks: of a wide row, each difference takes as much memory as what was computed.
        step = max(1, BLOCK // max(1, math.prod(values.shape[1:])))
        blocks = (slice(first, first + step) for first in range(0, len(given), step))
        largest = [(given[b] - stored[b]).abs().max() for b in blocks if values.size]
        difference = torch.stack(largest).max().item() if largest else 0.0
        # Overflow and NaN make the difference infinite or NaN; bins must not change at all.
        if not math.isfinite(difference) or (not given.is_floating_point() and difference):
            raise CacheError(
                f"utterance {id!r}: values up to {np.abs(values).max():.3g} do not fit "
                f"{self.dtype}; set `store_dtype: float32` for this backbone"
            )
        return Row(id, content, stored.numpy(), float(difference))

    def write(
        self,
        path: Path,
        rows: Sequence[Row | SpooledRow],
        *,
        rejected: Mapping[str, str] | None = None,
        deviation: float | None = None,
    ) -> None:
        """Write a shard; if that is interrupted, no file of its name exists.

        Args:
            path: File of the shard.
            rows: Utterances of the shard, in order.
            rejected: Reasons by id of utterances of this shard that could not be computed.
            deviation: Largest change by a reduced `compute_dtype`, relative to the largest value;
                recorded in the provenance.
        """
        measured = {} if deviation is None else {DEVIATION: deviation}
        with replacing(path) as temporary:
            write_shard(
                temporary,
                rows,
                spec=self.spec,
                provenance={**self.provenance, **measured},
                dtype=self.dtype,
                rejected=rejected,
            )
            seal(temporary)


class Spool:
    """Frames that memory does not hold, in a temporary file without a name that ends with this.

    Args:
        folder: Folder on the disk to use.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.folder = folder
        # Begins as what a kill leaves, where the file has a name for a moment (`features.files`).
        with tempfile.TemporaryFile(dir=folder, prefix=".rows-") as file:
            self.file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.file)
        self.bytes = 0

    def append(self, frames: Array) -> None:
        """Write frames behind those that are there."""
        left = raw(frames)
        try:
            while len(left):  # a disk that runs full takes a part first
                left = left[os.write(self.file, left) :]
        except OSError as error:
            error.filename = str(self.folder)  # the file itself has no name
            raise
        self.bytes += frames.nbytes

    def since(self, begin: int, dtype: str, width: tuple[int, ...]) -> StoredFrames:
        """Everything from byte `begin` on, as frames of a shape `width` each."""
        kind = np.dtype(dtype)
        count = (self.bytes - begin) // (kind.itemsize * math.prod(width))
        return _Spooled(Path("spool"), begin, kind, (count, *width), (0, 0, 0), self)


@dataclass(frozen=True)
class _Spooled(StoredFrames):
    spool: Spool

    @contextlib.contextmanager
    def open(self) -> Iterator[int]:
        """The spool's descriptor."""
        yield self.spool.file


def write_shard(
    path: Path,
    rows: Sequence[Row | SpooledRow],
    *,
    spec: StreamSpec,
    provenance: Mapping[str, Any],
    dtype: str,
    rejected: Mapping[str, str] | None = None,
) -> None:
    """Write rows as one shard to the temporary file `path` (`features.files.writing.replacing`).

    Beside the rows it takes the memory of a block.
    """
    width = () if spec.bins is not None else (spec.dim,)
    offsets = np.cumsum([0, *(row.frames.shape[0] for row in rows)], dtype=np.int64)
    shape = (int(offsets[-1]), *width)
    shard = Shard(
        path=path,
        ids=tuple(row.id for row in rows),
        contents=tuple(row.content for row in rows),
        offsets=offsets,
        crc32=np.array([crc32_of(row.blocks(dtype)) for row in rows], np.uint32),
        # Type and shape for the checksum; the place in the file is not known yet.
        stored=StoredFrames(path, 0, np.dtype(dtype), shape, (0, 0, 0)),
        spec=spec,
        provenance=provenance,
        rounding=np.array([row.rounding for row in rows], np.float64),
        rejected=dict(rejected or {}),
        checksum="",
    )

    def blocks() -> Iterator[memoryview]:
        for row in rows:
            yield from row.blocks(dtype)

    # HDF5 makes everything but the frames, in memory: it may crash when a disk runs full under it,
    # and a plain write does not.
    image, begin = _image(shard, checksum_of(shard, blocks()))
    with path.open("wb") as file:
        file.write(image.between(0, begin))
        for block in blocks():
            file.write(block)
        file.write(image.between(begin + shard.stored.bytes, image.size))


def _image(shard: Shard, checksum: str) -> tuple[_SparseFile, int]:
    """The file without its frames, and the offset at which they belong."""
    image, shape, begin = _SparseFile(), shard.stored.shape, 0
    with h5py.File(image, "w", libver=(HDF5_VERSION, HDF5_VERSION)) as file:
        # A time of creation would make equal rows differ in their bytes.
        frames = file.create_dataset("frames", shape, shard.stored.dtype, track_times=False)
        if shard.stored.bytes:
            frames[:1] = 0  # HDF5 gives all frames their place at the first write
            begin = frames.id.get_offset()
        _write(file, "offsets", shard.offsets)
        _write(file, "crc32", shard.crc32)
        _write(file, "rounding", shard.rounding)
        _write(file, "ids", _strings(shard.ids))
        _write(file, "contents", _strings(shard.contents))
        file.attrs["version"] = VERSION
        # Strings of fixed length: HDF5 keeps others in a heap without a checksum, where one damaged
        # byte can make its reader loop for ever.
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["spec"] = _json(shard.spec.to_dict())
        file.attrs["provenance"] = _json(shard.provenance)
        file.attrs["rejected"] = _json(shard.rejected)
        file.attrs["checksum"] = np.bytes_(checksum)
    return image, begin


class _SparseFile(io.RawIOBase):
    """A file in memory that holds only pages that were written; the others are zeros."""

    PAGE = 1 << 16  # bytes

    def __init__(self) -> None:
        self.size = 0
        self._place = 0
        self._pages: dict[int, bytearray] = {}

    def between(self, first: int, last: int) -> bytes:
        """The bytes from `first` to before `last`."""
        found = bytearray(last - first)
        self.seek(first)
        self.readinto(found)
        return bytes(found)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the place of the next access, as in any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Place of the next access."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Set the size; HDF5 never makes a file shorter than what it wrote."""
        self.size = self._place if size is None else size
        return self.size

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the current place."""
        into = memoryview(buffer).cast("B")
        for part, page, start in self._parts(into):
            held = self._pages.get(page)
            part[:] = bytes(len(part)) if held is None else held[start : start + len(part)]
        return len(into)

    def write(self, data: Any) -> int:
        """Write at the current place."""
        given = memoryview(data).cast("B")
        for part, page, start in self._parts(given):
            held = self._pages.setdefault(page, bytearray(self.PAGE))
            held[start : start + len(part)] = part
        self.size = max(self.size, self._place)
        return len(given)

    def _parts(self, whole: memoryview) -> Iterator[tuple[memoryview, int, int]]:
        """Pieces of a buffer with the page of each and its place there; moves past them."""
        while len(whole):
            page, start = divmod(self._place, self.PAGE)
            part = whole[: self.PAGE - start]
            self._place += len(part)
            whole = whole[len(part) :]
            yield part, page, start


def _write(file: Any, name: str, values: Array) -> None:
    file.create_dataset(name, data=values, track_times=False)


def _strings(values: Sequence[str]) -> Array:
    encoded = [value.encode() for value in values]
    # HDF5 has no texts of length 0, hence 1 where there are none.
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1)}")


def _json(value: Mapping[str, Any]) -> np.bytes_:
    return np.bytes_(
        json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    )
