"""Linear probes of each hidden state of stacked features: what a layer tells of the classes.

A frame of a stack holds hidden states side by side (`features.backbone.layers`), so that the
probe of one of them (`pipeline.runs.probes`) reads its columns of the stack's time averages: what
it finds is what a probe on a cache of that state alone would find. Probes are fitted to the
training split. The validation split is predicted as well, for a layer may be chosen by it.

Shapes: N utterances, L states, D width of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.corpus.manifest import Label
from features.files.csv_text import write_csv
from features.stream import StreamSpec
from pipeline.data.examples import Examples
from pipeline.data.layer_views import LAYER
from pipeline.runs.layout import LAYERS, SCORED, layer_column
from pipeline.runs.probes import Vectors, cached_vectors, fit_probe


def layer_columns(spec: StreamSpec, provenance: Mapping[str, Any]) -> dict[int, slice]:
    """Columns of each hidden state of a stack by its number; empty where there is no stack.

    It is empty, too, if nothing says which states these are, as of some imported features.

    >>> layer_columns(StreamSpec(8, layers=2), {"layer": [0, 3]})
    {0: slice(0, 4, None), 3: slice(4, 8, None)}
    """
    numbers = provenance.get(LAYER)
    if spec.layers == 1 or not isinstance(numbers, list | tuple) or len(numbers) != spec.layers:
        return {}
    width = spec.dim // spec.layers
    return {number: slice(k * width, (k + 1) * width) for k, number in enumerate(numbers)}


def guessed(
    train: Vectors, others: Vectors, labels: Sequence[Label], classes: Sequence[str]
) -> list[str]:
    """Class that a probe predicts for each row of `others` `[N, D]`.

    Args:
        train: `[M, D]`.
        others: `[N, D]`.
        labels: M labels with a class, of the rows of `train`.
        classes: Class names.
    """
    found = fit_probe(train, others, [label.class_name for label in labels], classes)
    return [classes[number] for number in found.argmax(1)]


def write_layer_probes(
    path: Path, examples: Examples, fold: int, vectors: Mapping[str, tuple[Vectors, Vectors]]
) -> None:
    """Fit a probe on each hidden state of a fold, and write its predictions.

    Args:
        path: layers.csv, with a row for each of predictions.csv; none is written without a stack.
        examples: Examples of a run that learns classes alone.
        fold: The fold.
        vectors: By slot: vectors of the training split, and of the test split.
    """
    stacks = {
        slot: states
        for slot, reader in examples.readers.items()
        if (states := layer_columns(reader.spec, reader.provenance))
    }
    if not stacks:
        return
    labels = {split: examples.split(fold, split) for split in ("train", *SCORED)}
    header = list(LAYERS)
    columns: list[Sequence[str]] = [
        [label.id for split in SCORED for label in labels[split]],
        [split for split in SCORED for _ in labels[split]],
        [label.class_name for split in SCORED for label in labels[split]],
    ]
    for slot, states in stacks.items():
        valid = cached_vectors(examples, slot, labels["valid"])
        train, test = vectors[slot]
        for number, of in states.items():
            others = np.concatenate([valid[:, of], test[:, of]])
            header.append(layer_column(slot, number))
            columns.append(guessed(train[:, of], others, labels["train"], examples.classes))
    write_csv(path, header, zip(*columns, strict=True))
