"""Vote, mean of probabilities, and stacking of several models' predictions.

- `vote`: the class with the most votes, where each member votes for its likeliest class. Of classes
  with equal votes that of the highest mean probability wins, of these the first in the order of
  the classes. `p_<class>` are shares of the votes. A model that answers in words votes for its
  answer, and for nothing where that names no class.
- `mean`: the likeliest class of the weighted mean of the probabilities.
- `stacking`: multinomial logistic regression (scikit-learn, L2 with C = 1) on the members'
  probabilities side by side, fitted on the validation rows (Wolpert, Stacked Generalization, Neural
  Networks 5, 1992; Ting & Witten, Issues in Stacked Generalization, JAIR 10, 1999, for
  probabilities in place of classes). For the validation rows themselves it is cross-fitted: each
  part of the speakers is predicted by a regression on the other parts.

Shapes: M members, N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.classes import Floats

Ints = NDArray[np.int64]
PARTS = 5  # of the validation rows, in cross-fitting


@dataclass(frozen=True)
class Combined:
    """What an ensemble predicts.

    Attributes:
        predictions: `[N]` indices below K.
        probabilities: `[N, K]`.
    """

    predictions: Ints
    probabilities: Floats


@dataclass(frozen=True)
class Validation:
    """Validation rows of a fold, the only ones that a search or a regression learns from.

    Attributes:
        probabilities: `[M, N, K]`.
        labels: `[N]` true classes.
        speakers: `[N]`.
    """

    probabilities: Floats
    labels: Ints
    speakers: Sequence[str]


def vote(probabilities: Floats, weights: Ints) -> Combined:
    """Votes of members; one that counts twice has two.

    Args:
        probabilities: `[M, N, K]`.
        weights: `[M]`, how often each member counts; some above 0.
    """
    classes = probabilities.shape[-1]
    ballots = likeliest(probabilities)[..., None] == np.arange(classes)
    votes = np.tensordot(weights, ballots.astype(np.float64), 1)
    # A mean probability is at most 1 and a vote counts 2, so that probability only breaks ties.
    predictions = (2 * votes + mean(probabilities, weights).probabilities).argmax(-1)
    cast = votes.sum(-1, keepdims=True)
    # Where nobody votes all classes are equal.
    shares = np.where(cast > 0, votes, 1.0) / np.where(cast > 0, cast, classes)
    return Combined(predictions.astype(np.int64), shares)


def mean(probabilities: Floats, weights: Ints) -> Combined:
    """Weighted mean of probabilities; arguments as of `vote`."""
    averaged = weighted_mean(probabilities, weights)
    return Combined(averaged.argmax(-1).astype(np.int64), averaged)


def likeliest(probabilities: Floats) -> Ints:
    """Likeliest classes `[...]` of `[..., K]`, the first of equals; -1 where all are 0."""
    found: Ints = probabilities.argmax(-1)
    return np.where(probabilities.any(-1), found, -1)


def weighted_mean(values: Floats, weights: Ints) -> Floats:
    """Mean `[...]` of values `[M, ...]`; of one member alone its values, to the last bit."""
    averaged: Floats = np.tensordot(weights / weights.sum(), values, 1)
    return averaged


def on_validation(method: str, rows: Validation, weights: Ints) -> Combined:
    """An ensemble on the validation rows, by which members are chosen; stacking is cross-fitted."""
    if method != "stacking":
        return _SIMPLE[method](rows.probabilities, weights)
    inputs = _inputs(rows.probabilities, weights)
    found = np.zeros((len(rows.labels), rows.probabilities.shape[-1]))
    for part in parts(rows.speakers):
        found[part] = _fitted(inputs[~part], rows.labels[~part], inputs[part], found.shape[1])
    return Combined(found.argmax(-1).astype(np.int64), found)


def on_test(method: str, rows: Validation, probabilities: Floats, weights: Ints) -> Combined:
    """An ensemble on other rows `[M, N, K]`, of which no label is known here."""
    if method != "stacking":
        return _SIMPLE[method](probabilities, weights)
    inputs = _inputs(rows.probabilities, weights)
    tested = _inputs(probabilities, weights)
    found = _fitted(inputs, rows.labels, tested, probabilities.shape[-1])
    return Combined(found.argmax(-1).astype(np.int64), found)


def parts(speakers: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Masks of the parts that are predicted by a regression on the others.

    They are of whole speakers, at most `PARTS`; of single rows where there is one speaker.
    """
    names = list(dict.fromkeys(speakers))
    keys = np.array([names.index(each) for each in speakers])
    if len(names) < 2:
        keys = np.arange(len(speakers))
    amount = min(PARTS, len(np.unique(keys)))
    return [keys % amount == part for part in range(amount)]


def _inputs(probabilities: Floats, weights: Ints) -> Floats:
    """Probabilities of the members that take part, side by side: `[N, M' K]`."""
    chosen = probabilities[weights > 0]
    return chosen.swapaxes(0, 1).reshape(chosen.shape[1], -1)


def _fitted(inputs: Floats, labels: Ints, tested: Floats, classes: int) -> Floats:
    """Probabilities `[N, K]` by a regression; 0 for classes that the labels lack."""
    from sklearn.linear_model import LogisticRegression  # a second, which the other methods save

    found = np.zeros((len(tested), classes))
    present = np.unique(labels)
    if len(present) == 1:
        found[:, present] = 1.0
    else:
        model = LogisticRegression(C=1.0, max_iter=1000).fit(inputs, labels)
        found[:, model.classes_] = model.predict_proba(tested)
    return found


_SIMPLE = {"vote": vote, "mean": mean}
