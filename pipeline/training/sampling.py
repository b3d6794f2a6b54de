"""Samplers: draw the utterances of an epoch from the training split.

Source: arXiv 2506.02088 and its public code. A sampler draws as many utterances as the split has,
with replacement, with the weight of their class: w_c = N / n_c makes classes equally frequent,
weights of 1 as frequent as in the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.corpus.manifest import Label

Sampler = Literal["none", "balanced", "to_uniform", "to_distribution"]


def class_counts(labels: Sequence[Label], classes: Sequence[str]) -> NDArray[np.int64]:
    """Number of labels of each class, `[K]`."""
    numbers = [classes.index(label.class_name) for label in labels]
    return np.bincount(numbers, minlength=len(classes)).astype(np.int64)


def sampler_weights(
    sampler: Sampler, counts: NDArray[np.int64], *, done: int, epochs: int
) -> NDArray[np.float64]:
    """Weight of one utterance of each class, `[K]`, in the epoch after `done` epochs.

    With r = done / epochs: `balanced` is w; `to_uniform` moves from w to uniform weights,
    (1 - r) w + r; `to_distribution` from uniform weights to w, (1 - r) + r w. The names are those
    of the public code, which also counts epochs from 0 (so that r stays below 1) and does not
    normalise w.

    >>> sampler_weights("to_uniform", np.array([6, 2]), done=1, epochs=2).round(3).tolist()
    [1.167, 2.5]
    """
    weights: NDArray[np.float64] = counts.sum() / np.maximum(counts, 1)
    if sampler == "none":
        return np.ones_like(weights)
    if sampler == "balanced":
        return weights
    r = done / epochs
    share = 1 - r if sampler == "to_uniform" else r  # the share of w
    return np.asarray(share * weights + (1 - share))


def draw(
    labels: Sequence[Label],
    classes: Sequence[str],
    weights: NDArray[np.float64],
    generator: np.random.Generator,
) -> list[Label]:
    """Draw as many labels as given, with replacement, in proportion to the weights of classes."""
    # The same weight for all utterances of a class.
    each = np.array([weights[classes.index(label.class_name)] for label in labels])
    chosen = generator.choice(len(labels), len(labels), p=each / each.sum())
    return [labels[i] for i in chosen]
