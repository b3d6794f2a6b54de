"""Fits a linear probe to each layer of a stack and each fold, and scores them."""

from __future__ import annotations

import numpy as np

from features.process.terminal import progress
from pipeline.data.targets import class_numbers
from pipeline.evaluation.layers import FoldGuesses, LayerCurve, layer_curve
from pipeline.evaluation.rows import Ints, RunRows
from pipeline.layers.stack import LayerStack
from pipeline.runs.layer_probes import guessed
from pipeline.runs.layout import SCORED


def probed(stack: LayerStack) -> LayerCurve:
    """The curve of a stack.

    Raises:
        CacheError: If a split of a fold is empty.
    """
    examples, means = stack.examples, stack.means()
    places = {label.id: row for row, label in enumerate(examples.labels)}
    splits = [
        {split: examples.split(fold, split) for split in ("train", *SCORED)}
        for fold in range(stack.folds)
    ]
    rows = [
        {split: [places[label.id] for label in labels] for split, labels in of.items()}
        for of in splits
    ]
    numbers = class_numbers(examples.labels, examples.classes)
    found: list[dict[int, Ints]] = [{} for _ in splits]
    # Layer by layer, so that memory holds the averages of one.
    pairs = [(number, fold) for number in stack.numbers for fold in range(stack.folds)]
    for number, fold in progress(pairs, total=len(pairs), what="layers", unit="probe"):
        vectors, of = means[number], rows[fold]
        others = vectors[[row for split in SCORED for row in of[split]]]
        guesses = guessed(vectors[of["train"]], others, splits[fold]["train"], examples.classes)
        found[fold][number] = np.array([examples.classes.index(name) for name in guesses], np.int64)
    folds = [
        FoldGuesses(
            np.concatenate([numbers[of[split]] for split in SCORED]),
            np.repeat([False, True], [len(of[split]) for split in SCORED]),
            guesses,
        )
        for of, guesses in zip(rows, found, strict=True)
    ]
    tested = [label for of in splits for label in of["test"]]
    truth = np.concatenate([numbers[of["test"]] for of in rows])
    known = RunRows.gathered(
        [label.id for label in tested],
        {label.id: label for label in tested},
        classes=tuple(examples.classes),
        seeds=1,
        seed=np.zeros(len(tested), np.int64),
        labels=truth,
        predictions=truth,  # the probes' own are scored in its place
        probabilities=np.full((len(tested), len(examples.classes)), np.nan),
        jobs=(),
    )
    return layer_curve(" and ".join(stack.entries), known, folds)
