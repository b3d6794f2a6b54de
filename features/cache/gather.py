"""Copies rows from anywhere in a cache into one padded batch, reusing the memory of old batches.

Shapes: B batch, T time, D width.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.cache.frames import Extent
from features.stream import Stream

OPEN_AT_ONCE = 64  # files at most; a batch rarely touches more shards
WORTH_REUSING_BYTES = 4 << 20  # smaller blocks are kept by the allocator itself
CACHED_BYTES = 512 << 10  # read before they are converted: fits a core's L2 cache
KEPT = 2  # free blocks of a size: training holds one batch while it makes the next, of two slots

_free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)


def gather(
    extents: Sequence[Extent],
    width: tuple[int, ...],
    kind: torch.dtype,
    *,
    mapped: bool,
    columns: slice | None = None,
) -> Stream:
    """Copy B rows, each once, converting on the way.

    Args:
        extents: Places of the rows.
        width: Shape of one frame: `(D,)`, or `()` for bins.
        kind: Type of the returned values.
        mapped: Whether to copy from the map of the files, or to use positioned reads.
        columns: Columns of a stored frame; None: all.

    Returns:
        Values `[B, T, D]` or `[B, T]` with zeros behind shorter rows, and mask `[B, T]`.
    """
    lengths = [extent.length for extent in extents]
    longest = max(lengths, default=0)
    values = empty((len(extents), longest, *width), kind)
    if mapped:
        rows = [stored.tensor[first:last] for stored, first, last in extents]
        fill(_of(rows, columns), values)
    else:
        for start in range(0, len(extents), OPEN_AT_ONCE):
            part = slice(start, start + OPEN_AT_ONCE)
            _read(extents[part], values[part], columns)
    # numpy compares in half of torch's time, which saves a twentieth of a batch of float16.
    mask = np.arange(longest) < np.array(lengths, np.int64)[:, None]
    return Stream(values, torch.from_numpy(mask))


def fill(rows: Sequence[Tensor], values: Tensor) -> None:
    """Write the rows `[T_i, ...]` into `values` `[B, T, ...]`, with zeros behind each.

    Rows that need no conversion go through numpy, that is `memcpy`, which overwrites memory without
    reading it first. torch's own loop reads it, and takes half as long again.
    """
    if rows and rows[0].dtype == values.dtype:
        for frames, row in zip(rows, values.numpy(), strict=True):
            row[: len(frames)] = frames.numpy()
    else:
        for frames, row in zip(rows, values, strict=True):
            row[: len(frames)] = frames
    clear_padding([len(row) for row in rows], values)


def clear_padding(lengths: Sequence[int], values: Tensor) -> None:
    """Write zeros after the first `lengths` frames of each of `values` `[B, T, ...]`."""
    # As bytes, which numpy fills by `memset`: that too does not read the memory first.
    memory = values.unsqueeze(-1).view(torch.uint8).numpy()
    for length, row in zip(lengths, memory, strict=True):
        row[length:].fill(0)


def _of(rows: Sequence[Tensor], columns: slice | None) -> Sequence[Tensor]:
    return rows if columns is None else [row[:, columns] for row in rows]


def _read(extents: Sequence[Extent], values: Tensor, columns: slice | None) -> None:
    """Fill `values` by positioned reads, all of which are announced to the disk first."""
    with contextlib.ExitStack() as opened:
        files: dict[Path, int] = {}
        for stored, first, last in extents:
            if stored.path not in files:
                files[stored.path] = opened.enter_context(stored.open())
            stored.want(files[stored.path], first, last)
        # torch has no public function from a dtype of numpy to its own.
        kind = torch.from_numpy(np.empty(0, extents[0].stored.dtype)).dtype
        if kind == values.dtype and columns is None:
            for row, (stored, first, last) in zip(values, extents, strict=True):
                stored.read(files[stored.path], first, row[: last - first].numpy())
            clear_padding([extent.length for extent in extents], values)
        else:
            _convert(extents, files, values, columns)


def _convert(
    extents: Sequence[Extent],
    files: Mapping[Path, int],
    values: Tensor,
    columns: slice | None,
) -> None:
    """Fill `values` through a buffer that stays in the processor's caches."""
    stored = extents[0].stored
    frame = math.prod(stored.shape[1:]) * stored.dtype.itemsize
    longest = max(extent.length for extent in extents)
    most = max(longest, CACHED_BYTES // max(frame, 1))
    buffer = torch.from_numpy(np.empty((most, *stored.shape[1:]), stored.dtype))
    for group in _groups(extents, most):
        rows: list[Tensor] = []
        done = 0
        for stored, first, last in extents[group]:
            rows.append(buffer[done : done + last - first])
            stored.read(files[stored.path], first, rows[-1].numpy())
            done += last - first
        fill(_of(rows, columns), values[group])


def _groups(extents: Sequence[Extent], most: int) -> Iterator[slice]:
    """Slices of neighbours that together have at most `most` frames."""
    start = frames = 0
    for stop, extent in enumerate(extents):
        if frames + extent.length > most:
            yield slice(start, stop)
            start, frames = stop, 0
        frames += extent.length
    yield slice(start, len(extents))


def empty(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """Uninitialised memory for a batch: that of an earlier batch once no tensor uses it any more.

    This is the main reason why reading is fast: fresh memory of such a size comes from the system,
    which clears every page of it, and for float32 that takes as long as everything else. Where
    there is nothing to reuse, numpy asks for huge pages (torch does not), which are cleared faster.
    """
    count = math.prod(shape) * kind.itemsize
    if count < WORTH_REUSING_BYTES:
        return torch.empty(shape, dtype=kind)
    size = 1 << (count - 1).bit_length()  # few sizes, so that one fits the next batch
    try:
        # Not `if` and `pop`: another thread may take the block in between.
        block = _free[size].pop()
    except IndexError:
        block = np.empty(size, np.uint8)
    # Only the tensor (and tensors that share its memory) hold this view, so it dies with the last.
    memory = block[:count]
    weakref.finalize(memory, _give_back, block).atexit = False
    return torch.from_numpy(memory).view(kind).reshape(shape)


def _give_back(block: NDArray[np.uint8]) -> None:
    if len(_free[len(block)]) < KEPT:
        _free[len(block)].append(block)
