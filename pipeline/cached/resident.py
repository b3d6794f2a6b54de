"""Keeps caches on the device: uploaded once; batches are gathered and padded there by indexing.

A training reads every frame in every epoch. If the streams of a run fit a share of the device's
free memory, they are copied there in the dtype in which they are stored; otherwise batches are read
from the caches, one ahead, into page-locked memory. Batches are the same to the bit. Jobs that
follow one another in a process (seeds, folds) use the same copy; processes side by side have one
each, and divide the share.

On a CPU there is nothing to gain, since the files are mapped into its memory already.

Shapes: B batch, N turns, T time, D width, S all frames of a slot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from features.cache.reader import CacheReader
from features.process.devices import moved, page_locked
from features.process.memory import available_bytes, out_of_memory
from features.stream import Stream
from pipeline.data.examples import Examples

FREE_PART = 0.5  # share of the free memory; the rest is for models and their activations
STAGING_BYTES = 64 << 20  # host memory that an upload takes


class ResidentFrames:
    """The frames of one slot on a device, one utterance after the other, then a frame of zeros.

    Args:
        reader: Cache of the slot.
        ids: Utterances to copy.
        device: Device to copy them to.
    """

    def __init__(self, reader: CacheReader, ids: Sequence[str], device: torch.device) -> None:
        self.rows = {id: row for row, id in enumerate(ids)}
        self.lengths = reader.lengths(ids).tolist()
        self.kind = torch.float32 if reader.spec.bins is None else torch.int64
        total = sum(self.lengths)
        # Utterance i has frames offsets[i] to offsets[i + 1]; the last offset is the frame of
        # zeros, which all padding is gathered from.
        offsets = np.cumsum([0, *self.lengths], dtype=np.int64)
        self.offsets = torch.from_numpy(offsets).to(device)
        self.frames = _upload(reader, ids, total, device)

    def batch(self, ids: Sequence[str]) -> Stream:
        """Values `[B, T, D]` (bins `[B, T]`) and mask, equal to those of `CacheReader.batch`."""
        rows = [self.rows[id] for id in ids]
        longest = max((self.lengths[row] for row in rows), default=0)
        picked = moved(torch.tensor(rows, dtype=torch.int64), self.offsets.device)
        first, last = self.offsets[picked], self.offsets[picked + 1]
        places = first[:, None] + torch.arange(longest, device=first.device)
        mask = places < last[:, None]
        return Stream(self._at(places.where(mask, self.offsets[-1])), mask)

    def turns(self, ids: Sequence[str], mask: Tensor) -> Stream:
        """Utterances of one frame each as turns `[B, N, D]`, as `stack_turns` of their batch.

        Args:
            ids: The turns that exist, dialogue after dialogue.
            mask: `[B, N]` bool, on the host.
        """
        rows = torch.full(mask.shape, len(self.rows))  # the frame of zeros
        rows[mask] = torch.tensor([self.rows[id] for id in ids], dtype=torch.int64)
        places = self.offsets[moved(rows, self.offsets.device)]
        return Stream(self._at(places), mask.to(places.device))

    def _at(self, places: Tensor) -> Tensor:
        return self.frames[places].to(self.kind)


class _Key(NamedTuple):
    """What a copy was made of, and where it is."""

    device: str
    shards: tuple[str, ...]
    columns: tuple[int, int] | None
    ids: tuple[str, ...]


_held: dict[_Key, ResidentFrames] = {}


def resident_part(device: str, processes: int = 1) -> float:
    """Share of the device's memory that each of several processes may use for copies."""
    return 0.0 if torch.device(device).type == "cpu" else FREE_PART / processes


def placed(examples: Examples, device: str, *, part: float) -> Examples:
    """The examples for a job on `device`: resident there if they fit, else read batch by batch.

    Args:
        examples: Result of `join`.
        device: Device of the job.
        part: Share of its memory that copies may use; 0: none are made.
    """
    if part > 0 and (copies := _resident(examples, device, part)) is not None:
        return copies
    kind = torch.device(device).type
    return dataclasses.replace(examples, ahead=kind != "cpu", pinned=kind == "cuda")


def _resident(examples: Examples, device: str, part: float) -> Examples | None:
    """The examples with all slots on the device; None if they do not fit.

    Copies of an earlier job are used again; those of other caches are removed first.
    """
    ids = tuple(label.id for label in examples.labels)
    keys = {
        slot: _Key(device, tuple(shard.checksum for shard in reader.shards), _columns(reader), ids)
        for slot, reader in examples.readers.items()
    }
    for key in set(_held) - set(keys.values()):
        del _held[key]
    missing = {keys[slot]: examples.readers[slot] for slot in keys if keys[slot] not in _held}
    # All slots or none: a batch is gathered either on the device or on the host.
    needed = sum(_bytes(reader, ids) for reader in missing.values())
    if needed > room(device, part):
        return None
    try:
        for key, reader in missing.items():
            _held[key] = ResidentFrames(reader, ids, torch.device(device))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        release()  # the free memory is in pieces, or another program's by now
        return None
    return dataclasses.replace(examples, residents={slot: _held[keys[slot]] for slot in keys})


def _columns(reader: CacheReader) -> tuple[int, int] | None:
    part = reader.columns  # a slice has no hash
    return None if part is None else (part.start, part.stop)


def release() -> None:
    """Remove all copies, at the end of a run."""
    _held.clear()


def room(device: str, part: float) -> float:
    """Bytes that the copies of one of several processes may take."""
    free, total = memory_bytes(device)
    # A share of all memory: of what is free, the last process would get less than the first.
    return min(part * total, FREE_PART * free)


def memory_bytes(device: str) -> tuple[int, int]:
    """Free and total memory of a device; zeros if they are unknown."""
    kind = torch.device(device)
    if kind.type == "cpu":
        return available_bytes(), available_bytes()
    memory: Any = getattr(torch.get_device_module(kind), "mem_get_info", None)
    return (0, 0) if memory is None else memory(kind)


def _bytes(reader: CacheReader, ids: Sequence[str]) -> int:
    frames = int(reader.lengths(ids).sum()) + 1
    return frames * _frame(reader, ids).nbytes


def _frame(reader: CacheReader, ids: Sequence[str]) -> np.ndarray[Any, Any]:
    """A frame of zeros with the shape and dtype of the cache."""
    some = reader[ids[0]]
    return np.zeros(some.shape[1:], some.dtype)


def _upload(reader: CacheReader, ids: Sequence[str], total: int, device: torch.device) -> Tensor:
    """Copy all frames by way of one buffer on the host: `[S + 1, D]` or `[S + 1]`."""
    frame = _frame(reader, ids)
    longest = int(reader.lengths(ids).max())
    size = min(max(longest, STAGING_BYTES // max(frame.nbytes, 1), 1), total + 1)
    dtype = torch.from_numpy(frame.reshape(-1)[:1].copy()).dtype
    buffer = torch.empty((size, *frame.shape), dtype=dtype)
    if device.type == "cuda":
        buffer = page_locked(buffer)
    host, filled, done = buffer.numpy(), 0, 0
    frames = torch.zeros((total + 1, *frame.shape), dtype=dtype, device=device)
    for id in ids:
        if filled + (length := reader.length(id)) > size:  # the buffer is full: send it
            frames[done : done + filled] = buffer[:filled]
            done, filled = done + filled, 0
        host[filled : filled + length] = reader[id]
        filled += length
    frames[done : done + filled] = buffer[:filled]
    assert done + filled == total
    return frames
