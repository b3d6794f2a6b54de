"""Cluster bootstrap: confidence intervals over speakers or dialogues, corrected for few of them.

Utterances of one speaker are alike, so that resampling utterances gives intervals that are too
narrow. Here whole clusters (speakers, or dialogues) are drawn with replacement (Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8, strategy 1).

The percentile interval of such draws is too narrow where clusters are few, for two reasons that the
mean of normal values shows: the variance of the draws is (C - 1) / C of what it should estimate,
and that estimate varies, which the t distribution allows for and the normal one does not
(Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015). So
both halves of the interval, measured from the median of the draws, are widened by

    k = t(0.975, C - 1) / z(0.975) * sqrt(C / (C - 1)),

1.58 for 5 clusters, 1.22 for 10, 1.10 for 20, and cut at the limits of the metric. Hesterberg's
"expanded percentile" interval takes more extreme quantiles by the same two factors instead, which
is the same for normal draws; but the draws end at the score of the single best or worst cluster, so
that with five clusters those quantiles are not far enough out. `benchmarks.interval_coverage`
compares them.

Every metric is a function of sums over utterances: of a confusion matrix, of moments of truth and
prediction (`pipeline.metrics.attributes`), or of scores of single utterances. The sums of a draw
are those of its clusters, weighted by how often each was drawn. So all draws are one matrix
product.

Shapes: S seeds, C clusters, D draws, K classes; `...` the axes of an utterance's sums, such as
`[K, K]` of a confusion matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.classes import Counts, Floats, Matrices, grouped_confusion

DRAWS = 2000
LEVEL = 0.95
FEW_CLUSTERS = 10
"""Below this number intervals are widened by more than a fifth, and a permutation of clusters
allows few values of p: both are said."""
LEAST_CLUSTERS = 5
"""Below this number there is no interval: that of macro F1 would hold the truth in 88 % of cases
with four clusters, in 82 % with two, and span most of what a score can be (docs/intervals.md)."""

Statistic = Callable[[Any], Mapping[str, Floats]]
"""Function from sums `[D, S, ...]` to named values `[D, S]`."""

Scores = Mapping[str, float]
"""Value by name of a metric."""
Intervals = Mapping[str, "ConfidenceInterval"]

_CHUNK_BYTES = 1 << 25
_INFINITE = float("inf")
_LIMITS = {
    **dict.fromkeys(("ccc", "pearson"), (-1.0, 1.0)),
    **dict.fromkeys(("rmse", "mae", "sd_ratio", "kld", "brier_soft", "soft_nll"), (0.0, _INFINITE)),
    "bias": (-_INFINITE, _INFINITE),
}
"""Limits of scores that are not between 0 and 1, by the beginning of their names."""


@dataclass(frozen=True)
class ConfidenceInterval:
    """A 95 % confidence interval."""

    low: float
    high: float


def cluster_confusions(
    clusters: NDArray[np.int64],
    seeds: NDArray[np.int64],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    shape: tuple[int, int, int],
    *,
    abstains: bool = False,
) -> Counts:
    """Confusion matrices of each seed and cluster.

    Args:
        clusters: `[N]` integers below C, the speaker or dialogue.
        seeds: `[N]` integers below S, the seed whose model made the prediction.
        labels: `[N]` integers below K, the true classes.
        predictions: `[N]` integers below K, the predicted classes.
        shape: S, C, K.
        abstains: Whether a prediction may be -1, none.

    Returns:
        `[S, C, K, K]`, or `[S, C, K, K + 1]` where predictions may be none; true classes in rows,
        zeros for a cluster without rows.

    Raises:
        ValueError: If lengths differ or a value is out of range.
    """
    n_seeds, n_clusters, classes = shape
    group = seeds * n_clusters + clusters
    counts = grouped_confusion(
        group, n_seeds * n_clusters, labels, predictions, classes, abstains=abstains
    )
    return counts.reshape(n_seeds, n_clusters, *counts.shape[1:])


@dataclass(frozen=True)
class Draws:
    """Scores in every draw of clusters, by name; none where the clusters are too few.

    Attributes:
        values: `[D]` seed-means of each score; NaN where a draw does not define it.
        clusters: C, those that hold any item.
    """

    values: Mapping[str, Floats]
    clusters: int

    def interval(self, name: str) -> ConfidenceInterval | None:
        """Interval of a score; None without draws, or if it is NaN in all of them."""
        return self._of(self.values.get(name), limits(name))

    def change(self, name: str, base: Draws) -> ConfidenceInterval | None:
        """Interval of a score minus that of `base`, paired: draw k has the same clusters in both.

        None as in `interval`.
        """
        low, high = limits(name)
        one, other = self.values.get(name), base.values.get(name)
        clusters = min(self.clusters, base.clusters)
        of = None if one is None or other is None else one - other
        return Draws({}, clusters)._of(of, (low - high, high - low))

    def _of(self, values: Floats | None, within: tuple[float, float]) -> ConfidenceInterval | None:
        if values is None or np.isnan(values).all():
            return None
        return expanded_interval(values, self.clusters, within)


def limits(name: str) -> tuple[float, float]:
    """Lowest and highest possible value of a score, given its name in metrics.json.

    >>> limits("uar"), limits("ccc_valence"), limits("rmse")
    ((0.0, 1.0), (-1.0, 1.0), (0.0, inf))
    """
    found = (of for kind, of in _LIMITS.items() if name == kind or name.startswith(f"{kind}_"))
    return next(found, (0.0, 1.0))


def bootstrap(
    matrices: Matrices, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, ConfidenceInterval]:
    """95 % intervals of the seed-mean of each metric, over draws of clusters.

    Args:
        matrices: `[S, C, ...]`, such as those of `cluster_confusions`.
        statistic: Function that computes the metrics.
        draws: D.
        seed: Random seed of the draws; the same seed gives the same intervals.

    Returns:
        An interval for each name, except those that are NaN in every draw. Empty below
        `LEAST_CLUSTERS` clusters.
    """
    found = cluster_draws(matrices, statistic, draws=draws, seed=seed)
    intervals = {name: found.interval(name) for name in found.values}
    return {name: each for name, each in intervals.items() if each is not None}


def cluster_draws(
    matrices: Matrices, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Draws:
    """Draws of `resample`, or none where fewer than `LEAST_CLUSTERS` clusters hold an item."""
    others = (0, *range(2, matrices.ndim))
    clusters = int(matrices.any(axis=others).sum())
    few = clusters < LEAST_CLUSTERS
    return Draws({} if few else resample(matrices, statistic, draws=draws, seed=seed), clusters)


def resample(
    matrices: Matrices, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Floats]:
    """Seed-mean `[D]` of each metric in every draw of clusters.

    All seeds see the same draw, since they were tested on the same clusters; their spread is
    reported separately, as a standard deviation. The draws depend on C, D and `seed` alone, so that
    two results on the same clusters are paired, draw by draw: their difference is that of two
    models, or of two groups of utterances, among the same speakers.

    Every draw is scored like any subset (`pipeline.metrics.classes`): a class that no drawn
    cluster holds is left out. Values are NaN where a draw does not define them: all of them where
    it holds no item, those of a class where its labels lack the class.

    Args:
        matrices: `[S, C, ...]`, such as those of `cluster_confusions`.
        statistic: Function that computes the metrics.
        draws: D.
        seed: Random seed of the draws.
    """
    chunks = [
        seed_means(matrices, counts, statistic) for counts in cluster_counts(matrices, draws, seed)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def expanded_interval(
    values: Floats, clusters: int, within: tuple[float, float] = (-_INFINITE, _INFINITE)
) -> ConfidenceInterval:
    """Percentile interval of draws, widened for the number of clusters as the module says.

    Args:
        values: `[D]`; NaN are left out, and there must be another value.
        clusters: C, at least 2.
        within: Limits of what the values can be.
    """
    from scipy.special import stdtrit  # a third of a second, which `heronry board` can do without

    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, middle, high = np.quantile(values[~np.isnan(values)], (tails[0], 0.5, tails[1]))
    factor = stdtrit(clusters - 1, tails[1]) / NormalDist().inv_cdf(tails[1])
    factor *= math.sqrt(clusters / (clusters - 1))
    return ConfidenceInterval(
        float(max(middle - factor * (middle - low), within[0])),
        float(min(middle + factor * (high - middle), within[1])),
    )


def cluster_counts(
    matrices: Matrices, draws: int, seed: int, *, chunk_bytes: int = _CHUNK_BYTES
) -> Iterator[Counts]:
    """How often each cluster is drawn, in chunks `[d, C]` of D draws altogether.

    Drawing C clusters with replacement gives multinomial counts. A chunk is as large as its
    sums stay below `chunk_bytes`; the numbers do not depend on it.
    """
    seeds, clusters, *rest = matrices.shape
    rng = np.random.default_rng(seed)
    # per draw: the sums, about four arrays of their size within the metrics, counts
    each = 8 * (5 * seeds * math.prod(rest) + 2 * clusters)
    size = max(1, chunk_bytes // each)
    for start in range(0, draws, size):
        amount = min(size, draws - start)
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=amount)


def seed_means(matrices: Matrices, counts: Counts, statistic: Statistic) -> dict[str, Floats]:
    """Metrics `[D]` of draws given as cluster counts `[D, C]`, averaged over the S seeds."""
    seeds, clusters, *rest = matrices.shape
    flat = matrices.swapaxes(0, 1).reshape(clusters, seeds * math.prod(rest))
    # in floats, since BLAS does not multiply integers; the sums are exact below 2^53
    drawn = counts.astype(np.float64) @ flat.astype(np.float64)
    values = statistic(drawn.reshape(len(counts), seeds, *rest))
    empty = ~drawn.any(1)
    return {name: np.where(empty, np.nan, value.mean(-1)) for name, value in values.items()}
