"""Classification metrics as functions of confusion matrices.

Shapes: N items, K classes; `...` any leading axes (seeds, folds, bootstrap draws), all at once.
A confusion matrix `[..., K, K]` counts items with the true class in rows, the predicted one in
columns. A ratio whose denominator is 0 counts as 0, as scikit-learn does with `zero_division=0`.
All values are fractions in [0, 1].

A language model may answer with no class at all. A matrix `[..., K, K + 1]` counts such items in a
last column, which is no class: they stay in the support of their own, are a hit of none and a guess
of none. So they are wrong in every metric, as scikit-learn has it with a prediction that is not
among its `labels`.

Subsets (a fold, a draw of the bootstrap, a group of people) may lack classes. They follow the
default of scikit-learn: macro F1 is the mean over the classes that occur in the labels or in the
predictions of the subset, UAR that over the classes that occur in its labels. So a perfect subset
scores 1 whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Matrices = NDArray[Any]
"""Counts `[..., K, K]` as integers, or as floats where draws weight them."""

_NOTHING = 1e-9
"""Count up to which a class is empty: sums of fractions, such as means, may miss 0 by rounding."""

MONITORS = ("accuracy", "uar", "macro_f1", "weighted_f1")
"""Metrics that the epoch to keep may be selected on, and that every report opens with."""


@dataclass(frozen=True)
class PerClass:
    """Metrics of each class, all `[..., K]`; `support` is the number of items of the class."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Floats


def confusion(
    labels: ArrayLike, predictions: ArrayLike, classes: int, *, abstains: bool = False
) -> Counts:
    """Count pairs of true and predicted class.

    Args:
        labels: `[N]` integers, the true classes.
        predictions: `[N]` integers, the predicted ones.
        classes: Number of classes K.
        abstains: Whether a prediction may be -1, none, which a last column counts.

    Returns:
        `[K, K]`, true classes in rows; `[K, K + 1]` where predictions may be none.

    Raises:
        ValueError: If lengths differ, or a value is no integer from 0 to K - 1.

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    >>> confusion([0, 0, 1], [0, -1, 1], 2, abstains=True).tolist()
    [[1, 0, 1], [0, 1, 0]]
    """
    one_group = np.zeros(np.shape(labels), np.int64)
    found = grouped_confusion(one_group, 1, labels, predictions, classes, abstains=abstains)
    matrix: Counts = found[0]
    return matrix


def grouped_confusion(
    groups: ArrayLike,
    n_groups: int,
    labels: ArrayLike,
    predictions: ArrayLike,
    classes: int,
    *,
    abstains: bool = False,
) -> Counts:
    """One `confusion` for each of G groups, `[G, K, K]`; `groups` `[N]` holds that of each item.

    Raises:
        ValueError: As `confusion`, and if a group is out of range.
    """
    group = _indices("groups", groups, n_groups)
    truth = _indices("labels", labels, classes)
    columns, guess = classes, np.asarray(predictions)
    if abstains:
        columns, guess = classes + 1, np.where(guess == -1, classes, guess)
    guess = _indices("predictions", guess, columns)
    if not len(group) == len(truth) == len(guess):
        raise ValueError(
            f"{len(group)} groups, {len(truth)} labels and {len(guess)} predictions; "
            "expected as many of each"
        )
    # Index of the cell (group, truth, guess) of `[G, K, K]` in memory.
    flat = (group * classes + truth) * columns + guess
    counts = np.bincount(flat, minlength=n_groups * classes * columns)
    return counts.astype(np.int64).reshape(n_groups, classes, columns)


def per_class(matrices: Matrices) -> PerClass:
    """Precision, recall, F1 and support of every class, from `[..., K, K]`."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    # Sums of rows are TP + FN, the items of each class; of columns TP + FP, its predictions.
    true, guessed = matrices.sum(-1), _guesses(matrices)
    return PerClass(
        precision=_ratio(hits, guessed),
        recall=_ratio(hits, true),
        # 2 P R / (P + R) with P = TP / guessed and R = TP / true, where one TP cancels.
        f1=_ratio(2 * hits, true + guessed),
        support=np.asarray(true, np.float64),
    )


def accuracy(matrices: Matrices) -> Floats:
    """Share of items predicted correctly, `[...]`; the field calls it weighted accuracy (WA)."""
    return _ratio(np.trace(matrices, axis1=-2, axis2=-1), matrices.sum((-2, -1)))


def uar(matrices: Matrices) -> Floats:
    """Unweighted average recall over the classes that occur in the labels, `[...]`.

    Equals scikit-learn's `balanced_accuracy_score`.
    """
    classes = per_class(matrices)
    # The recall of an absent class is 0 (`_ratio`), so only the divisor has to leave it out.
    return _ratio(classes.recall.sum(-1), (classes.support > _NOTHING).sum(-1))


def macro_f1(matrices: Matrices) -> Floats:
    """Mean F1 over the classes that occur in the labels or in the predictions, `[...]`.

    Equals scikit-learn's `f1_score(average="macro")`. A class that is predicted and absent from
    the labels counts as 0; one that is in neither is left out.
    """
    occurring = matrices.sum(-1) + _guesses(matrices) > _NOTHING
    return _ratio(per_class(matrices).f1.sum(-1), occurring.sum(-1))


def weighted_f1(matrices: Matrices) -> Floats:
    """Mean F1 weighted by the support of each class, `[...]`."""
    classes = per_class(matrices)
    return _ratio((classes.f1 * classes.support).sum(-1), classes.support.sum(-1))


def ovr_accuracy(matrices: Matrices) -> Floats:
    """Mean accuracy of the K one-vs-rest decisions, `[...]`: the "accuracy" of LPGNet.

    It adds nothing to accuracy. An item predicted correctly is correct in all K decisions, any
    other is wrong in exactly two (its own class and the predicted one), hence

        ovr_accuracy = 1 - 2 (1 - accuracy) / K.

    With 8 classes an accuracy of 0.125, which is chance, already reads as 0.781. An item without a
    prediction is wrong in one of the decisions alone, that about its own class.
    """
    return np.asarray(ovr_accuracies(matrices).mean(-1))


def ovr_accuracies(matrices: Matrices) -> Floats:
    """Accuracy of each one-vs-rest decision, `[..., K]`."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    # FN + FP: the row and the column of a class both contain its TP.
    wrong = matrices.sum(-1) + _guesses(matrices) - 2 * hits
    total = matrices.sum((-2, -1))[..., None]
    return _ratio(total - wrong, np.broadcast_to(total, wrong.shape))


def ovr_weighted_f1(matrices: Matrices) -> Floats:
    """Mean support-weighted F1 of the K one-vs-rest decisions, `[...]`.

    The "F1" of older multimodal work (MulT's evaluation of IEMOCAP), and so perhaps of LPGNet,
    whose F1 lies as close to its accuracy. As `ovr_accuracy` it counts the rest as a class, and is
    high for every model; it is neither `weighted_f1` nor, as the mean of the F1 of the classes
    themselves is, `macro_f1`.
    """
    return np.asarray(ovr_weighted_f1s(matrices).mean(-1))


def ovr_weighted_f1s(matrices: Matrices) -> Floats:
    """F1 of each one-vs-rest decision, weighted by the support of the class and of the rest.

    `[..., K]`; scikit-learn's `f1_score(labels == k, predictions == k, average="weighted")`.
    """
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    true, guessed = matrices.sum(-1), _guesses(matrices)
    total = matrices.sum((-2, -1))[..., None]
    # The rest is a class as well: its hits are the true negatives.
    others, guessed_others = total - true, total - guessed
    rejected = total - true - guessed + hits
    own = _ratio(2 * hits, true + guessed) * true
    rest = _ratio(2 * rejected, others + guessed_others) * others
    return _ratio(own + rest, np.broadcast_to(total, own.shape))


def scores(matrices: Matrices) -> dict[str, Floats]:
    """All summary metrics by their name in metrics.json, each `[...]`, from `[..., K, K]`."""
    return {
        "accuracy": accuracy(matrices),
        "uar": uar(matrices),
        "macro_f1": macro_f1(matrices),
        "weighted_f1": weighted_f1(matrices),
        "ovr_accuracy": ovr_accuracy(matrices),
        "ovr_weighted_f1": ovr_weighted_f1(matrices),
    }


def class_values(matrices: Matrices) -> tuple[Floats, Floats]:
    """Recall and F1 of each class, `[..., K]`; NaN where the labels lack the class.

    In a mean a class that is predicted and absent may count as 0; as the value of the class itself
    0 would be wrong, since nothing is known about how it is recognised.
    """
    found = per_class(matrices)
    absent = found.support <= _NOTHING
    return np.where(absent, np.nan, found.recall), np.where(absent, np.nan, found.f1)


def row_shares(matrices: Matrices) -> Floats:
    """Confusion matrices normalised by row, of their shape: shares of each true class.

    Rows sum to 1; the row of a class without items is 0.
    """
    return _ratio(matrices, matrices.sum(-1)[..., None])


def validation_scores(
    labels: ArrayLike, predictions: ArrayLike, n_classes: int
) -> dict[str, float]:
    """Metrics named in `MONITORS`, for one epoch; arguments and errors are those of `confusion`."""
    values = scores(confusion(labels, predictions, n_classes))
    return {name: float(values[name]) for name in MONITORS}


def f1_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Keys of metrics.json for the F1 of each class.

    >>> f1_names(["Sad", "very sad", "sad"])
    ('f1_sad', 'f1_very_sad', 'f1_sad_2')
    """
    return keys("f1", classes)


def keys(prefix: str, names: Sequence[str]) -> tuple[str, ...]:
    """Keys of metrics.json made of names: lower case, other signs as `_`, no two alike.

    >>> keys("uar_duration", ["under 2 s", "10 s and over"])
    ('uar_duration_under_2_s', 'uar_duration_10_s_and_over')
    """
    found: list[str] = []
    for name in names:
        plain = f"{prefix}_" + re.sub(r"\W+", "_", name.lower()).strip("_")
        unique, number = plain, 1
        while unique in found:
            number += 1
            unique = f"{plain}_{number}"
        found.append(unique)
    return tuple(found)


def unanswered(matrices: Matrices) -> Floats:
    """Share of items without a prediction, `[...]`; 0 for matrices without a column for them."""
    size = matrices.shape[-2]
    return _ratio(matrices[..., size:].sum((-2, -1)), matrices.sum((-2, -1)))


def _guesses(matrices: Matrices) -> Any:
    """Predictions of each class, `[..., K]`; a column of items without one is left out."""
    return matrices.sum(-2)[..., : matrices.shape[-2]]


def _indices(name: str, values: ArrayLike, below: int) -> Counts:
    array = np.asarray(values)
    if array.size == 0:
        # An empty list becomes float64, which the check below would refuse.
        return np.zeros(0, np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} has shape {array.shape} and type {array.dtype}; expected [N] integers"
        )
    if array.min() < 0 or array.max() >= below:
        raise ValueError(
            f"{name} holds {array.min()} to {array.max()}; expected integers from 0 to {below - 1}"
        )
    return array.astype(np.int64)


def _ratio(top: Any, bottom: Any) -> Floats:
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    ratio: Floats = np.zeros(np.broadcast(top, bottom).shape)
    # Where nothing is divided, `out` keeps its 0, and numpy gives no warning.
    np.divide(top, bottom, out=ratio, where=bottom > _NOTHING)
    return ratio
