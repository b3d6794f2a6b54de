"""Cuts a split into batches of utterances or dialogues of about equal length.

Batches may be made by a thread while the ones before them are used (`read_ahead`). That feeds a
GPU: frames are copied, converted and page-locked outside of Python's lock while the device
computes. A CPU whose cores are all busy gains nothing by it, so it is not used there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.corpus.manifest import Label
from features.process.devices import device_threads, page_locked
from features.stream import Stream
from pipeline.data.dialogues import places_by_dialogue
from pipeline.data.source import ExampleSource, T
from pipeline.model.base import Unit
from pipeline.model.batch import Batch

POOL = 16  # batches that are sorted by length together


Places = NDArray[np.int64]


class _Rows(Sequence[Sequence[Label]]):
    """Rows of batches, utterances or dialogues, of which only numbers are held in memory.

    Args:
        labels: Labels of one split.
        unit: Kind of the rows.
    """

    def __init__(self, labels: Sequence[Label], unit: Unit) -> None:
        self.labels = labels
        self.dialogues = places_by_dialogue(labels) if unit == "dialogue" else None

    def __len__(self) -> int:
        return len(self.labels if self.dialogues is None else self.dialogues)

    def __getitem__(self, number: Any) -> Any:
        return [self.labels[place] for place in self.places(number)]

    def places(self, number: int) -> list[int]:
        """Places in `labels` of a row's utterances, in order."""
        return [number] if self.dialogues is None else self.dialogues[number]

    def lengths(self, examples: ExampleSource) -> NDArray[np.float64]:
        """What rows are sorted by."""
        if self.dialogues is None:
            return examples.lengths(self.labels)
        return np.array([len(places) for places in self.dialogues], np.float64)


class _Some(Sequence[Sequence[Label]]):
    """Some of the rows, in an order."""

    def __init__(self, rows: _Rows, numbers: Places) -> None:
        self.rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[int(self.numbers[index])]


def shuffled_batches(
    examples: ExampleSource,
    labels: Sequence[Label],
    size: int,
    generator: np.random.Generator,
    *,
    unit: Unit = "utterance",
    skip: int = 0,
    by_length: bool = True,
) -> Iterator[Batch]:
    """All utterances once, in random batches of about equal length.

    The order is random; within each pool of 16 batches utterances are sorted by length, which
    saves padding, and the batches of a pool come in random order again.

    Args:
        examples: Source of the features.
        labels: Labels of one split.
        size: Utterances in a batch; with the unit `dialogue`, dialogues.
        generator: Random generator of the order.
        unit: Kind of the rows of a batch.
        skip: Batches that are already done, which are left out without being read.
        by_length: Whether pools are sorted. A loss that compares the rows of a batch with each
            other, as 1 - CCC, is worse on rows that are alike (docs/training.md).
    """
    rows = _Rows(labels, unit)
    lengths = rows.lengths(examples)
    order = generator.permutation(len(rows))
    step = POOL * examples.typical_rows(size)
    for start in range(0, len(order), step):
        pool = order[start : start + step]
        ordered = pool[_by_length(lengths[pool])] if by_length else pool
        batches = _cut(examples, rows, ordered, size)
        # Read ahead within a pool alone: augmentation draws from the same generator between pools.
        batches = [batches[i] for i in generator.permutation(len(batches))]
        # The generator draws for skipped batches too, so that the order of the rest is the same.
        yield from _made(examples, rows, batches[skip:])
        skip = max(skip - len(batches), 0)


def ordered_batches(
    examples: ExampleSource, labels: Sequence[Label], size: int, *, unit: Unit = "utterance"
) -> Iterator[tuple[list[int], Batch]]:
    """All utterances once, by length, each batch with the places of its labels in `labels`.

    With the unit `dialogue` these places are in the order of the batch's turns that exist.
    """
    rows = _Rows(labels, unit)
    batches = _cut(examples, rows, _by_length(rows.lengths(examples)), size)
    places = ([place for row in batch.tolist() for place in rows.places(row)] for batch in batches)
    yield from zip(places, _made(examples, rows, batches), strict=True)


def batch_count(
    examples: ExampleSource, labels: Sequence[Label], size: int, *, unit: Unit = "utterance"
) -> int:
    """Batches of an epoch; about as many where batches close at a number of seconds."""
    rows = _Rows(labels, unit)
    return len(_cut(examples, rows, _by_length(rows.lengths(examples)), size))


def typical_scored(
    examples: ExampleSource, labels: Sequence[Label], size: int, *, unit: Unit = "utterance"
) -> float:
    """Utterances, or turns, of a usual batch."""
    return examples.typical_rows(size) * len(labels) / len(_Rows(labels, unit))


def _by_length(lengths: NDArray[np.float64]) -> Places:
    """Numbers of rows in order of length, equal ones as they are."""
    return np.argsort(lengths, kind="stable")


def _cut(examples: ExampleSource, rows: _Rows, ordered: Places, size: int) -> list[Places]:
    """Rows in order as batches of `size` or of what the source can compute at once."""
    sizes = examples.batch_sizes(_Some(rows, ordered), size)
    return np.split(ordered, np.cumsum(sizes)[:-1]) if sizes else []


def _made(examples: ExampleSource, rows: _Rows, batches: Sequence[Places]) -> Iterator[Batch]:
    def make(numbers: Places) -> Batch:
        by_row = [rows[number] for number in numbers.tolist()]
        if rows.dialogues is not None:
            return examples.dialogue_batch(by_row)
        return examples.batch([label for (label,) in by_row])

    return examples.make_all(make, batches)


def read_ahead(make: Callable[[T], Batch], members: Sequence[T]) -> Iterator[Batch]:
    """`map(make, members)`, one batch ahead of the caller and no more.

    Three batches are held at a time: the one in use, the next one, and the one being read. What
    `make` raises is raised when its batch is due.
    """
    with device_threads(1, "heronry-read-ahead") as reader:
        coming = [reader.submit(make, each) for each in members[:1]]
        for each in members[1:]:
            ready = coming.pop().result()
            # Requested before this one is handed over, so that it is made while this one is used.
            coming.append(reader.submit(make, each))
            yield ready
        for last in coming:
            yield last.result()


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory: `to(device)` then returns before the copy is done.

    What there is no room for stays where it is.
    """
    streams = {
        slot: Stream(page_locked(stream.values), page_locked(stream.mask))
        for slot, stream in batch.streams.items()
    }
    labels = None if batch.labels is None else page_locked(batch.labels)
    # Targets stay where they are: a few numbers a row.
    return dataclasses.replace(batch, streams=streams, labels=labels)
