"""Chance-level baselines: the scores of guessing, to compare every result with.

Three ways of guessing without looking at the utterance: always the most frequent class of the
training split ("majority"); every class with the same probability ("chance"); classes as often as
in the training split ("prior"). The last two are random; their scores are expectations, in closed
form.

Let n_k items have class k, item i guess class k with probability q_i, g be the number of guesses
of k, and h the hits among them. The F1 of class k is 2 h / (n_k + g), and by the linearity of the
expectation, taking one item of class k after the other,

    E[F1_k] = sum over items i of class k of  2 q_i E[1 / (n_k + 1 + g_without_i)],

where g without item i is a sum of independent binomials, one per fold, since q is constant within
a fold.

In the same way for "any other class than k", which is guessed with probability 1 - q_i: its F1 and
that of k, weighted by their items, are the F1 of one one-vs-rest decision.

Macro F1 is the mean over the classes that the labels or the guesses hold. A class that the labels
lack counts where some item guesses it, with probability 1 - prod_i (1 - q_i); the sum of the F1 is
divided by the expected number of classes. That is the expectation where every class is in the
labels, or is sure to be guessed or never is, and close to it elsewhere.

Shapes: F folds, K classes, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.errors import RunError
from pipeline.evaluation.statistics import Scores
from pipeline.metrics.classes import Floats, scores


@dataclass(frozen=True)
class Baselines:
    """Scores of guessing by metric; `majority_classes` names the guess of each fold."""

    majority: Scores
    chance: Scores
    prior: Scores
    majority_classes: tuple[str, ...]


def baselines(train: Floats, test: Floats, classes: Sequence[str]) -> Baselines:
    """Score the guesses on the test rows of all folds, pooled.

    Args:
        train: `[F, K]` training utterances of each class.
        test: `[F, K]` test utterances of each class.
        classes: K names.

    Raises:
        RunError: If a fold has no training utterances.
    """
    empty = np.flatnonzero(train.sum(1) == 0)
    if len(empty):
        raise RunError(
            f"labels: no training utterances in fold {empty[0]}; expected some, for the majority "
            "baseline: run `dvc repro` to prepare and train again"
        )
    guesses = train.argmax(1)
    majority = np.zeros((len(classes), len(classes)))
    for fold, guess in enumerate(guesses):
        majority[:, guess] += test[fold]
    return Baselines(
        majority={name: float(value) for name, value in scores(majority).items()},
        chance=expected_scores(np.full(train.shape, 1 / len(classes)), test),
        prior=expected_scores(train / train.sum(1, keepdims=True), test),
        majority_classes=tuple(classes[k] for k in guesses),
    )


def expected_scores(guess: Floats, test: Floats) -> dict[str, float]:
    """Expected scores of guessing each class with a fixed probability, folds pooled.

    Args:
        guess: `[F, K]` probability of guessing each class.
        test: `[F, K]` test utterances of each class.
    """
    support, total, size = test.sum(0), test.sum(), test.shape[1]
    hits = (guess * test).sum(0)
    present = support > 0
    guessed = 1 - ((1 - guess) ** test.sum(1, keepdims=True)).prod(0)
    accuracy = hits.sum() / total
    items = test.sum(1)
    f1 = np.array([_expected_f1(guess[:, k], test[:, k], items) for k in range(size)])
    rest = np.array([_expected_f1(1 - guess[:, k], items - test[:, k], items) for k in range(size)])
    return {
        "accuracy": float(accuracy),
        "uar": float((hits[present] / support[present]).mean()),
        "macro_f1": float(f1.sum() / np.where(present, 1, guessed).sum()),
        "weighted_f1": float((f1 * support).sum() / total),
        "ovr_accuracy": float(1 - 2 * (1 - accuracy) / size),
        "ovr_weighted_f1": float(((f1 * support + rest * (total - support)) / total).mean()),
    }


def _expected_f1(guess: Floats, of_class: Floats, items: Floats) -> float:
    """Expected F1 of one class.

    Args:
        guess: `[F]` probability of guessing the class.
        of_class: `[F]` test items of the class.
        items: `[F]` test items of all classes.
    """
    # Imported here, since they take a second and `heronry show` imports this module.
    from scipy.signal import fftconvolve
    from scipy.stats import binom

    support, expected = of_class.sum(), 0.0
    for fold in np.flatnonzero(of_class * guess):
        others = items - (np.arange(len(items)) == fold)  # g of the formula: without item i
        chances = np.ones(1)  # distribution of g: that of a sum is the convolution of its terms'
        for number, share in zip(others, guess, strict=True):
            chances = fftconvolve(chances, binom.pmf(np.arange(number + 1), number, share))
        times = np.arange(len(chances))
        expected += 2 * of_class[fold] * guess[fold] * (chances / (support + 1 + times)).sum()
    return float(expected)
