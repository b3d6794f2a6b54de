"""Cluster bootstrap: confidence intervals over speakers or dialogues.

Utterances of one speaker are alike, so that resampling utterances gives intervals that are too
narrow. Here whole clusters (speakers, or dialogues) are drawn with replacement: the percentile
bootstrap of Efron & Tibshirani (An Introduction to the Bootstrap, 1993, section 13.3) over clusters
(Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8, strategy 1).

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.classes import Counts, Floats, Matrices, grouped_confusion

DRAWS = 2000
LEVEL = 0.95
FEW_CLUSTERS = 20
"""Below this number of clusters percentile intervals are known to be too narrow."""
LEAST_CLUSTERS = 5
"""Below this number a report gives no interval: two clusters have only 3 different draws, four 35,
and the ends of the interval are then the scores of single clusters."""

Statistic = Callable[[Any], Mapping[str, Floats]]
"""Function from sums `[D, S, ...]` to named values `[D, S]`."""

Scores = Mapping[str, float]
"""Value by name of a metric."""
Intervals = Mapping[str, "ConfidenceInterval"]

_CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class ConfidenceInterval:
    """The range of the middle 95 % of the draws."""

    low: float
    high: float


def cluster_confusions(
    clusters: NDArray[np.int64],
    seeds: NDArray[np.int64],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    shape: tuple[int, int, int],
) -> Counts:
    """Confusion matrices of each seed and cluster.

    Args:
        clusters: `[N]` integers below C, the speaker or dialogue.
        seeds: `[N]` integers below S, the seed whose model made the prediction.
        labels: `[N]` integers below K, the true classes.
        predictions: `[N]` integers below K, the predicted classes.
        shape: S, C, K.

    Returns:
        `[S, C, K, K]`, true classes in rows; zeros for a cluster without rows.

    Raises:
        ValueError: If lengths differ or a value is out of range.
    """
    n_seeds, n_clusters, classes = shape
    group = seeds * n_clusters + clusters
    counts = grouped_confusion(group, n_seeds * n_clusters, labels, predictions, classes)
    return counts.reshape(n_seeds, n_clusters, classes, classes)


def bootstrap(
    matrices: Matrices, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, ConfidenceInterval]:
    """95 % percentile intervals of the seed-mean of each metric, over draws of clusters.

    Args:
        matrices: `[S, C, ...]`, such as those of `cluster_confusions`.
        statistic: Function that computes the metrics.
        draws: D.
        seed: Random seed of the draws; the same seed gives the same intervals.

    Returns:
        An interval for each name, except those that are NaN in every draw. Empty for fewer than
        two clusters: one cluster says nothing about another, and an interval of width zero would
        claim certainty.
    """
    if matrices.shape[1] < 2:
        return {}
    values = resample(matrices, statistic, draws=draws, seed=seed)
    return {n: percentile_interval(of) for n, of in values.items() if not np.isnan(of).all()}


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


def percentile_interval(values: Floats) -> ConfidenceInterval:
    """Interval of the draws `[D]` that are not NaN; there must be at least one."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(values[~np.isnan(values)], tails)
    return ConfidenceInterval(float(low), float(high))


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
