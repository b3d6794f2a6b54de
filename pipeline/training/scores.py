"""Predictions of a model on some utterances, and its scores on a validation split.

Shapes: N utterances, K classes, A attributes, G genders, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from features.corpus.manifest import Label
from pipeline.data.targets import TargetReader, class_numbers, known_values, true_votes
from pipeline.metrics.attributes import attribute_scores, attribute_sums
from pipeline.metrics.classes import MONITORS, validation_scores
from pipeline.metrics.votes import multilabel_counts, multilabel_macro_f1, named, vote_scores
from pipeline.model.batch import UNSCORED
from pipeline.params.training import JOINT

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A model's output on a list of utterances.

    Attributes:
        probabilities: `[N, K]` float64, in the order of the list.
        loss: Mean loss.
        values: `[N, A]` predicted attributes on the corpus's scale, clipped to it.
        genders: `[N, G]` probabilities.
        several: `[N, K]` probabilities of each class by itself, of a model that has them.
        clipped: `[A]` numbers of predictions that were clipped.
        task_losses: Loss by target; empty with classes alone.
    """

    probabilities: Floats
    loss: float = math.nan
    values: Floats = field(default_factory=lambda: np.empty((0, 0)))
    genders: Floats = field(default_factory=lambda: np.empty((0, 0)))
    several: Floats | None = None
    clipped: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    task_losses: Mapping[str, float] = field(default_factory=dict)


def decoded(
    reader: TargetReader,
    raw: Floats,
    loss: float = math.nan,
    task_losses: Mapping[str, float] | None = None,
) -> Scored:
    """Predictions by what the columns of outputs `[N, O]` mean."""
    outputs, found = reader.outputs, torch.from_numpy(raw)
    values, clipped = outputs.to_corpus(outputs.of_attributes(found).numpy())
    return Scored(
        outputs.probabilities(found).numpy(),
        loss,
        values,
        outputs.of_genders(found).softmax(1).numpy(),
        outputs.several(found).numpy() if outputs.binary else None,
        clipped,
        task_losses or {},
    )


def target_scores(reader: TargetReader, labels: Sequence[Label], found: Scored) -> dict[str, float]:
    """Metrics that an epoch may be kept by (`TrainParams.monitors`); NaN where undefined.

    Whatever a model is trained on, they are about what the corpus says: classes it names, votes of
    its raters, attributes in its own estimate.
    """
    outputs, scores = reader.outputs, dict[str, float]()
    if outputs.classes:
        scores |= _of_classes(outputs.classes, labels, found.probabilities)
    if "votes" in reader.tasks:
        scores |= _of_votes(outputs.classes, labels, found)
    if outputs.attributes:
        middles = (outputs.low + outputs.high) / 2
        truth = known_values(labels, outputs.attributes)
        sums = attribute_sums(truth, found.values, np.zeros(len(labels), np.int64), 1, middles)
        each = attribute_scores(sums)["ccc"][0].tolist()
        scores["ccc"] = math.nan if any(map(math.isnan, each)) else sum(each) / len(each)
        scores |= {f"ccc_{name}": ccc for name, ccc in zip(outputs.attributes, each, strict=True)}
        if outputs.classes:
            scores[JOINT] = (scores["ccc"] + scores["macro_f1"]) / 2
    return scores


def _of_classes(
    classes: Sequence[str], labels: Sequence[Label], probabilities: Floats
) -> dict[str, float]:
    truth = class_numbers(labels, classes)
    known = truth != UNSCORED
    if not known.any():
        return dict.fromkeys(MONITORS, math.nan)
    return validation_scores(truth[known], probabilities[known].argmax(1), len(classes))


def _of_votes(
    classes: Sequence[str], labels: Sequence[Label], predicted: Scored
) -> dict[str, float]:
    votes = true_votes(labels, classes)
    known = ~np.isnan(votes).any(1)
    if not known.any():
        return dict.fromkeys(("jsd", "kld", "multilabel_f1"), math.nan)
    shares = votes[known] / votes[known].sum(1, keepdims=True)
    q = predicted.probabilities[known]
    found = vote_scores(shares, q)
    groups = np.zeros(len(q), np.int64)
    # 1 / K is a threshold of distributions; sigmoids are each above or below one half.
    guessed = named(q) if predicted.several is None else predicted.several[known] > 0.5
    counts = multilabel_counts(named(shares), guessed, groups, 1)
    return {
        "jsd": float(found["jsd"].mean()),
        "kld": float(found["kld"].mean()),
        "multilabel_f1": float(multilabel_macro_f1(counts)[0]),
    }
