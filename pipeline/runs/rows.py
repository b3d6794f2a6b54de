"""Rows of predictions as CSV cells: what a model says of an utterance, and what the corpus says.

Numbers have nine significant digits; a cell is empty where something is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from features.corpus.manifest import Label
from pipeline.data.source import ExampleSource
from pipeline.data.targets import TargetReader, known_values, true_votes
from pipeline.model.outputs import Outputs
from pipeline.runs.layout import Columns
from pipeline.runs.tables import cells
from pipeline.training.scores import Scored

Floats = NDArray[np.float64]


def reader_of(examples: ExampleSource) -> TargetReader:
    """What a model on these examples learns; of one class an utterance too."""
    return examples.targets or TargetReader(("classes",), Outputs(tuple(examples.classes)))


def columns_of(reader: TargetReader) -> Columns:
    """Columns of the files of its run."""
    outputs = reader.outputs
    return Columns(
        reader.tasks, outputs.classes, outputs.attributes, outputs.genders, outputs.binary
    )


def named(classes: Sequence[str], probabilities: Floats) -> str:
    """The likeliest class; empty if the model has none."""
    return classes[int(probabilities.argmax())] if len(probabilities) else ""


def predicted_cells(
    reader: TargetReader, labels: Sequence[Label], found: Scored
) -> Iterator[list[str]]:
    """Cells of predictions.csv after `prediction`, of each utterance."""
    outputs = reader.outputs
    votes = true_votes(labels, outputs.classes)
    truth = known_values(labels, outputs.attributes)
    for row in range(len(labels)):
        written = cells(found.probabilities[row])
        if "votes" in reader.tasks:
            written += cells(votes[row] / votes[row].sum())
        if outputs.attributes:
            written += cells(truth[row]) + cells(found.values[row])
        if outputs.genders:
            written += cells(found.genders[row])
        if found.several is not None:
            written += cells(found.several[row])
        yield written


def short_cells(reader: TargetReader, found: Scored) -> list[list[str]]:
    """Cells of probes.csv and conditions.csv after `prediction`: probabilities and attributes."""
    attributes = bool(reader.outputs.attributes)
    return [
        cells(probabilities) + (cells(found.values[row]) if attributes else [])
        for row, probabilities in enumerate(found.probabilities)
    ]
