"""Rows of batches: utterances or dialogues, in order of length and cut into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.manifest import Label
from pipeline.dialogues import places_by_dialogue
from pipeline.example_source import ExampleSource
from pipeline.fusion._model import Unit


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
