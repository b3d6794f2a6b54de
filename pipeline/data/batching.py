"""Rows of batches: utterances or dialogues, in order of length and cut into batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from features.corpus.manifest import Label
from features.process.devices import device_threads
from features.stream import Stream
from pipeline.data.dialogues import places_by_dialogue
from pipeline.data.source import ExampleSource
from pipeline.model.base import Unit
from pipeline.model.batch import Batch

Group = TypeVar("Group")

POOL = 16  # batches that are sorted by length together


def shuffled_batches(
    examples: ExampleSource,
    labels: Sequence[Label],
    size: int,
    generator: np.random.Generator,
    *,
    unit: Unit = "utterance",
    skip: int = 0,
) -> Iterator[Batch]:
    """All utterances once, in random batches of about equal length.

    The order is random; within each pool of 16 batches utterances are sorted by length, which
    saves padding, and the batches of a pool come in random order again.

    Args:
        examples: Where the features come from.
        labels: Of one split.
        size: Utterances a batch; with the unit `dialogue`, dialogues.
        generator: Of the order.
        unit: What a row of a batch is.
        skip: Batches that are done, and are left out without being read.
    """
    rows = rows_of(examples, labels, unit)
    order = generator.permutation(len(rows))
    step = POOL * examples.typical(size)
    for start in range(0, len(order), step):
        pool = sorted((rows[i] for i in order[start : start + step]), key=length)
        groups = cut(examples, labels, pool, size)
        # Read ahead within a pool alone: augmentation draws from the same generator between pools.
        groups = [groups[i] for i in generator.permutation(len(groups))]
        yield from _batches(examples, labels, groups[skip:], unit)
        skip = max(skip - len(groups), 0)


def ordered_batches(
    examples: ExampleSource, labels: Sequence[Label], size: int, *, unit: Unit = "utterance"
) -> Iterator[tuple[list[int], Batch]]:
    """All utterances once, by length, each batch with the places of its labels in `labels`.

    With the unit `dialogue` these places are in the order of the batch's labels that are not -1.
    """
    rows = sorted(rows_of(examples, labels, unit), key=length)
    groups = cut(examples, labels, rows, size)
    places = ([place for row in group for place in row.places] for group in groups)
    yield from zip(places, _batches(examples, labels, groups, unit), strict=True)


def _batches(
    examples: ExampleSource, labels: Sequence[Label], groups: Sequence[Sequence[Row]], unit: Unit
) -> Iterator[Batch]:
    return examples.made(partial(_batch, examples, labels, unit), groups)


def _batch(
    examples: ExampleSource, labels: Sequence[Label], unit: Unit, rows: Sequence[Row]
) -> Batch:
    of_rows = [[labels[place] for place in row.places] for row in rows]
    if unit == "dialogue":
        return examples.dialogue_batch(of_rows)
    return examples.batch([label for (label,) in of_rows])


class Row(NamedTuple):
    """A row of a batch: places in the list of labels, and the length that it is sorted by."""

    places: list[int]
    length: float


def rows_of(examples: ExampleSource, labels: Sequence[Label], unit: Unit) -> list[Row]:
    """Each utterance, or each dialogue, in the order of the labels."""
    if unit == "dialogue":
        return [Row(places, len(places)) for places in places_by_dialogue(labels)]
    return [Row([place], examples.length(label)) for place, label in enumerate(labels)]


def length(row: Row) -> float:
    """By which rows are sorted."""
    return row.length


def cut(
    examples: ExampleSource, labels: Sequence[Label], rows: Sequence[Row], size: int
) -> list[Sequence[Row]]:
    """Rows in order of length as batches of `size`, or as the source would have them."""
    counts = examples.counts([[labels[place] for place in row.places] for row in rows], size)
    ends = np.cumsum(counts).tolist()
    return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]


def batch_count(
    examples: ExampleSource, labels: Sequence[Label], size: int, *, unit: Unit = "utterance"
) -> int:
    """Batches of an epoch; where they close at a number of seconds, about as many."""
    return len(cut(examples, labels, sorted(rows_of(examples, labels, unit), key=length), size))


def read_ahead(make: Callable[[Group], Batch], groups: Sequence[Group]) -> Iterator[Batch]:
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
