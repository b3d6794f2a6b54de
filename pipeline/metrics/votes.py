"""Scores of predicted distributions of votes, and of the emotions that they name.

Shapes: N items, K classes, G groups; `...` any leading axes. `truth` holds the shares of the
raters' votes t, `predicted` the probabilities q; both `[..., K]`, each row with sum 1. The scores
of items are means over items in every report, so that sums of them and numbers of items add up.

Several emotions at once (multi-label, arXiv 2402.13018): a class counts as named if its share is
above 1 / K, strictly, so that an even vote names none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.metrics.classes import Counts, Floats, Matrices

Named = NDArray[np.bool_]

VOTE_SCORES = ("jsd", "kld", "total_variation", "cosine", "brier_soft", "soft_nll")
"""Names of `vote_scores`."""

LEAST = 1e-12
"""What probabilities that were rounded to 0 in a file are raised to, for a finite divergence."""

_EVEN = 1e-6
"""Distance up to which a share is 1 / K: files hold 9 digits. With R raters other shares are at
least 1 / (K R) away."""


def vote_scores(truth: ArrayLike, predicted: ArrayLike) -> dict[str, Floats]:
    """Scores named in `VOTE_SCORES`, each `[...]`, one for every row of `[..., K]`.

    - `jsd`: Jensen-Shannon divergence in bits, between 0 and 1 (of which scipy's distance is the
      square root).
    - `kld`: KL(t || q) in nats; infinite where q is 0 and t is not.
    - `total_variation`: half the sum of |t - q|.
    - `cosine`: of the two vectors.
    - `brier_soft`: the sum of (t - q)^2.
    - `soft_nll`: -sum t log q in nats, the entropy of t more than `kld`.
    """
    from scipy.special import rel_entr, xlogy  # a fifth of a second, which classes alone need not

    t, q = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    middle = (t + q) / 2
    divergence = (rel_entr(t, middle) + rel_entr(q, middle)).sum(-1) / (2 * np.log(2))
    kld = rel_entr(t, q).sum(-1)
    lengths = np.sqrt((t * t).sum(-1) * (q * q).sum(-1))
    return {
        "jsd": divergence,
        "kld": kld,
        "total_variation": np.abs(t - q).sum(-1) / 2,
        "cosine": (t * q).sum(-1) / lengths,
        "brier_soft": ((t - q) ** 2).sum(-1),
        "soft_nll": kld - xlogy(t, t).sum(-1),
    }


def named(shares: ArrayLike) -> Named:
    """Which classes shares `[..., K]` name: those above 1 / K.

    For shares of R votes it is the exact decision K v > R, also after they went through a file.

    >>> named([[0.5, 0.25, 0.25, 0], [0.25, 0.25, 0.25, 0.25]]).tolist()
    [[True, False, False, False], [False, False, False, False]]
    """
    values = np.asarray(shares, np.float64)
    above: Named = values > 1 / values.shape[-1] + _EVEN
    return above


def multilabel_counts(truth: Named, predicted: Named, groups: ArrayLike, n_groups: int) -> Counts:
    """Numbers of hits, false alarms and misses of each group and class, `[G, K, 3]`.

    Args:
        truth: `[N, K]`, the classes that the raters name.
        predicted: `[N, K]`, those that the model names.
        groups: `[N]` integers, the group of each item.
        n_groups: G.
    """
    terms = np.stack([truth & predicted, ~truth & predicted, truth & ~predicted], axis=-1)
    counts: Counts = np.zeros((n_groups, *terms.shape[1:]), np.int64)
    np.add.at(counts, np.asarray(groups, np.int64), terms)
    return counts


def multilabel_f1(counts: Matrices) -> Floats:
    """F1 of each class, `[..., K]`, from `[..., K, 3]`; 0 for one that nobody names."""
    hits, alarms, misses = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    f1: Floats = np.zeros(hits.shape)
    # The counts of draws are sums of floats, which may miss 0 by rounding.
    bottom = 2 * hits + alarms + misses
    np.divide(2 * hits, bottom, out=f1, where=bottom > 1e-9)
    return f1


def multilabel_macro_f1(counts: Matrices) -> Floats:
    """Mean F1 over all K classes, `[...]`; equals scikit-learn's with `zero_division=0`."""
    return np.asarray(multilabel_f1(counts).mean(-1))


def plurality(shares: ArrayLike) -> Counts:
    """The class with most votes, `[...]` from `[..., K]`; -1 where several have as many.

    >>> plurality([[0.6, 0.2, 0.2], [0.4, 0.4, 0.2]]).tolist()
    [0, -1]
    """
    values = np.asarray(shares, np.float64)
    most = values >= values.max(-1, keepdims=True) - _EVEN
    return np.where(most.sum(-1) == 1, values.argmax(-1), -1).astype(np.int64)


def normalised_entropy(shares: ArrayLike) -> Floats:
    """Entropy over that of an even vote, `[...]` from `[..., K]`: 0 unanimous, 1 even."""
    from scipy.special import xlogy

    values = np.asarray(shares, np.float64)
    return np.asarray(np.maximum(-xlogy(values, values).sum(-1), 0.0) / np.log(values.shape[-1]))


def entropy_strata(entropies: ArrayLike) -> tuple[Sequence[str], Counts]:
    """Items by how much their raters disagree: unanimous ones, and terciles of the others.

    Args:
        entropies: `[N]` of `normalised_entropy`.

    Returns:
        Names of the four strata, and the number of each item's, `[N]`. Equal entropies are in the
        same stratum, so that sizes differ where many are.
    """
    values = np.asarray(entropies, np.float64)
    split = values > 1e-6
    strata = np.zeros(values.shape, np.int64)
    if split.any():
        bounds = np.quantile(values[split], [1 / 3, 2 / 3])
        # Rounded, since the same vote in another order differs in the last digit.
        strata[split] = 1 + np.searchsorted(bounds.round(9), values[split].round(9), side="left")
    return ("unanimous", "low", "middle", "high"), strata
