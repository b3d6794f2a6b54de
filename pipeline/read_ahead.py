"""Batches made by a thread while the ones before them are used: what feeds a GPU from a cache.

Copying and converting frames and page-locking them happens outside of Python's lock, while the
device computes. The order is that of the caller, so no number changes. On a CPU whose cores are all
busy nothing was gained by it (`read_ahead` of benchmarks/training.py), so it is not used there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from features.devices import device_threads
from features.stream import Stream
from pipeline.batch import Batch

Rows = TypeVar("Rows")


def read_ahead(make: Callable[[Rows], Batch], groups: Sequence[Rows]) -> Iterator[Batch]:
    """`map(make, groups)`, one batch ahead of the caller and no more.

    Three batches are held at a time: that in use, the next one, and the one that is being read.
    What `make` raises is raised when its batch is due.
    """
    with device_threads(1, "heronry-read-ahead") as reader:
        coming = [reader.submit(make, group) for group in groups[:1]]
        for group in groups[1:]:
            ready = coming.pop().result()
            coming.append(reader.submit(make, group))
            yield ready
        for last in coming:
            yield last.result()


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory: `to(device)` then returns before the copy is done."""
    streams = {
        slot: Stream(stream.values.pin_memory(), stream.mask.pin_memory())
        for slot, stream in batch.streams.items()
    }
    labels = None if batch.labels is None else batch.labels.pin_memory()
    return dataclasses.replace(batch, streams=streams, labels=labels)
