"""Frames of a shard, read from its file: through a map of its pages, or by positioned reads.

Neither keeps the file open: a cache may have more shards than the 1,024 descriptors that a process
commonly gets. torch is imported for `StoredFrames.tensor` alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import weakref
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.errors import CacheError, DamagedShardError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_BYTES = 1 << 20  # read at once for checksums; larger ones are not faster
Array = NDArray[Any]

_libc = ctypes.CDLL(None, use_errno=True)
# By default ctypes takes results and arguments for 32-bit integers, which cuts addresses.
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),  # address, size
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),  # protection, flags, file, offset
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
# MAP_FAILED of sys/mman.h.
_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class StoredFrames:
    """A contiguous array inside a file.

    Attributes:
        path: File.
        start: First byte of the array.
        dtype: Type of the values.
        shape: `[sum T, D]` or `[sum T]`.
        identity: Inode, size and modification time of the file that `start` was read from.
    """

    path: Path
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    identity: tuple[int, int, int]

    @property
    def bytes(self) -> int:
        """Size of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @cached_property
    def array(self) -> Array:
        """View of the file's pages, read-only; the disk is read when they are used."""
        view = self._mapped.view()
        view.flags.writeable = False
        return view

    @cached_property
    def tensor(self) -> Tensor:
        """The same pages; torch converts float16 an order of magnitude faster than numpy.

        Writing to it would change what this process sees, though never the file.
        """
        import torch

        return torch.from_numpy(self._mapped)

    @contextlib.contextmanager
    def open(self) -> Iterator[int]:
        """A descriptor of the file for `want` and `read`.

        Raises:
            CacheError: If the file is gone or was replaced since `start` was read.
        """
        try:
            # O_NONBLOCK: opening a pipe that was put in its place must not wait for a writer.
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CacheError(
                f"{self.path} can no longer be opened ({error}); was the cache replaced while it "
                "was being read? start again"
            ) from error
        try:
            if identity(os.fstat(file)) != self.identity:
                raise CacheError(
                    f"{self.path} was replaced while it was being read; start again to read the "
                    "new one"
                )
            yield file
        finally:
            os.close(file)

    def want(self, file: int, first: int, last: int) -> None:
        """Announce to the system that frames `first:last` will be read: the disk starts early."""
        advise = getattr(os, "posix_fadvise", None)  # Linux has it, macOS does not
        if advise is not None:
            step = self._frame_bytes
            advise(file, self.start + first * step, (last - first) * step, os.POSIX_FADV_WILLNEED)

    def read(self, file: int, first: int, into: Array) -> None:
        """Fill `into`, `[T, D]` or `[T]` of the stored dtype, from frame `first` on."""
        assert into.flags.c_contiguous  # otherwise the bytes would go into a copy
        self._read(file, raw(into), self.start + first * self._frame_bytes)

    def blocks(self) -> Iterator[memoryview]:
        """All bytes in order, in one buffer that each block overwrites.

        Unlike mapped pages that were touched, it does not grow this process's memory.
        """
        buffer = memoryview(bytearray(min(BLOCK_BYTES, self.bytes)))
        with self.open() as file:
            for done in range(0, self.bytes, BLOCK_BYTES):
                block = buffer[: self.bytes - done]
                self._read(file, block, self.start + done)
                yield block

    def __getstate__(self) -> dict[str, Any]:
        """Fields without the map: a copy in another process maps the file for itself."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @cached_property
    def _mapped(self) -> Array:
        if not self.bytes:
            # mmap refuses a length of 0.
            return np.empty(self.shape, self.dtype)
        size = self.start + self.bytes
        with self.open() as file:
            try:
                pages = map_pages(file, size)
            except OSError as error:
                raise CacheError(
                    f"{self.path} cannot be mapped into memory ({error}); open the cache with "
                    '`access="read"`, or check `ulimit -v` and vm.overcommit_memory'
                ) from error
        values: Array = pages[self.start :].view(self.dtype).reshape(self.shape)
        return values

    @property
    def _frame_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def _read(self, file: int, into: memoryview, place: int) -> None:
        while len(into):
            try:
                # May read less than asked for: Linux stops just below 2 GiB.
                count = os.preadv(file, [into], place)
            except OSError as error:
                raise CacheError(f"{self.path} cannot be read ({error}); check its disk") from error
            if not count:
                raise DamagedShardError(f"{self.path} ends at byte {place}; it is truncated")
            into, place = into[count:], place + count


class Extent(NamedTuple):
    """Place of an utterance's frames: `first:last` of the frames of its shard."""

    stored: StoredFrames
    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of frames T."""
        return self.last - self.first


def map_pages(file: int, size: int) -> NDArray[np.uint8]:
    """Map the first `size` bytes of an open file into memory; the file may be closed afterwards.

    Python's own `mmap`, and so `np.memmap`, keeps a descriptor open for as long as the map lives.
    The map is private: writing to it changes a copy of the page. It is writable all the same, since
    torch warns about tensors of read-only memory.

    Raises:
        OSError: If the system refuses.
    """
    access = mmap.PROT_READ | mmap.PROT_WRITE
    address = _libc.mmap(None, size, access, mmap.MAP_PRIVATE, file, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    pages = (ctypes.c_uint8 * size).from_address(address)
    # Arrays hold `pages`, so the last of them unmaps; at exit threads may still read, so none does.
    weakref.finalize(pages, _libc.munmap, address, size).atexit = False
    return np.frombuffer(memoryview(pages), np.uint8)


def raw(array: Array) -> memoryview:
    """Bytes of an array in order: a view of a contiguous array, a copy of any other."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def crc32_of(blocks: Iterable[bytes | memoryview]) -> int:
    """CRC-32 of some blocks, one behind the other."""
    found = 0
    for block in blocks:
        found = zlib.crc32(block, found)
    return found


def identity(status: os.stat_result) -> tuple[int, int, int]:
    """Identity of a file under its name: inode, size and modification time."""
    return status.st_ino, status.st_size, status.st_mtime_ns
