"""Rows from anywhere in a cache, written straight into one padded tensor.

Legend: B batch, T time, D width.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.frames import StoredFrames
from features.stream import Stream

OPEN_AT_ONCE = 64  # files at most; a batch rarely touches more shards
WORTH_REUSING_BYTES = 4 << 20  # below, the allocator keeps memory by itself
KEPT = 2  # blocks of a size: training holds one batch while it makes the next, here of two slots

_free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)


class Extent(NamedTuple):
    """Where the frames of an utterance are: `first:last` of those of its shard."""

    stored: StoredFrames
    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of frames T."""
        return self.last - self.first


def gather(
    extents: Sequence[Extent], width: tuple[int, ...], kind: torch.dtype, *, mapped: bool
) -> Stream:
    """Copy B rows, each once, converting on the way.

    Args:
        extents: The rows.
        width: Shape of one frame: `(D,)`, or `()` for bins.
        kind: In which dtype they are returned.
        mapped: Whether to take them from the map of the files, or by positioned reads.

    Returns:
        Values `[B, T, D]` or `[B, T]` with zeros after the shorter, and mask `[B, T]`.
    """
    lengths = [extent.length for extent in extents]
    longest = max(lengths, default=0)
    values = empty((len(extents), longest, *width), kind)
    if mapped:
        copy_rows([stored.tensor[first:last] for stored, first, last in extents], values)
    else:
        for start in range(0, len(extents), OPEN_AT_ONCE):
            part = slice(start, start + OPEN_AT_ONCE)
            _read(extents[part], values[part])
    clear_padding(lengths, values)
    return Stream(values, torch.arange(longest) < torch.tensor(lengths)[:, None])


def copy_rows(rows: Sequence[Tensor], values: Tensor) -> None:
    """Fill the beginning of each of `values` `[B, T, ...]` with one of the rows `[T_i, ...]`.

    Rows that need no conversion go through numpy, that is `memcpy`, which overwrites memory without
    reading it first. torch's own loop reads it, and takes half as long again.
    """
    if rows and rows[0].dtype == values.dtype:
        for frames, row in zip(rows, values.numpy(), strict=True):
            row[: len(frames)] = frames.numpy()
    else:
        for frames, row in zip(rows, values, strict=True):
            row[: len(frames)] = frames


def clear_padding(lengths: Sequence[int], values: Tensor) -> None:
    """Write zeros after the first `lengths` frames of each of `values` `[B, T, ...]`.

    Bytes, since only those are filled by `memset`, which spares memory for the same reason.
    """
    memory = values.unsqueeze(-1).view(torch.uint8).numpy()
    for length, row in zip(lengths, memory, strict=True):
        row[length:].fill(0)


def _read(extents: Sequence[Extent], values: Tensor) -> None:
    """Fill the beginning of each row, having asked the disk for all of them at once."""
    with contextlib.ExitStack() as opened:
        files: dict[Path, int] = {}
        for stored, first, last in extents:
            if stored.path not in files:
                files[stored.path] = opened.enter_context(stored.open())
            stored.want(files[stored.path], first, last)
        stored, longest = extents[0].stored, max(extent.length for extent in extents)
        # One row that stays in the processor's cache while it is converted.
        buffer = np.empty((longest, *stored.shape[1:]), stored.dtype)
        converted = torch.from_numpy(buffer)
        for row, (stored, first, last) in zip(values, extents, strict=True):
            length = last - first
            if converted.dtype == row.dtype:
                stored.read(files[stored.path], first, row[:length].numpy())
            else:
                stored.read(files[stored.path], first, buffer[:length])
                row[:length] = converted[:length]


def empty(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """Memory for a batch: that of an earlier batch once no tensor uses it any more.

    Fresh memory of such a size comes from the system, which clears every page of it: for float32
    that takes as long as the rest. Where there is nothing to reuse, numpy asks for huge pages
    (torch does not), which makes the clearing cheaper.
    """
    count = math.prod(shape) * kind.itemsize
    if count < WORTH_REUSING_BYTES:
        return torch.empty(shape, dtype=kind)
    size = 1 << (count - 1).bit_length()  # few sizes, so that one fits the next batch
    try:
        block = _free[size].pop()
    except IndexError:
        block = np.empty(size, np.uint8)
    # The tensor holds this view and nothing else does: it dies with the last tensor.
    memory = block[:count]
    weakref.finalize(memory, _give_back, block).atexit = False
    return torch.from_numpy(memory).view(kind).reshape(shape)


def _give_back(block: NDArray[np.uint8]) -> None:
    if len(_free[len(block)]) < KEPT:
        _free[len(block)].append(block)
