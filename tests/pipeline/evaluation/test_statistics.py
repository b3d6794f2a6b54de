"""The cluster bootstrap: against an oracle that resamples utterances, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pipeline.evaluation.statistics import (
    ConfidenceInterval,
    bootstrap,
    cluster_confusions,
    cluster_counts,
    cluster_draws,
    expanded_interval,
    limits,
    resample,
    seed_means,
)
from pipeline.metrics.classes import Counts, confusion, scores

Ints = NDArray[np.int64]


class Problem:
    """Test predictions of two seeds on the utterances of seven speakers of unequal size."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        speakers = np.repeat([f"s{k}" for k in range(7)], rng.integers(3, 30, size=7))
        labels = rng.integers(0, 4, size=len(speakers))
        self.clusters = np.tile(speakers, 2)
        self.labels = np.tile(labels, 2)
        self.seeds = np.repeat([0, 1], len(speakers))
        wrong = rng.random(len(self.labels)) < 0.4
        self.predictions = np.where(wrong, rng.integers(0, 4, size=len(wrong)), self.labels)

    def matrices(self, order: Ints | None = None) -> Counts:
        rows = np.arange(len(self.labels)) if order is None else order
        columns = (self.clusters, self.seeds, self.labels, self.predictions)
        names, seeds, labels, predictions = (column[rows] for column in columns)
        distinct, clusters = np.unique(names, return_inverse=True)
        return cluster_confusions(clusters, seeds, labels, predictions, (2, len(distinct), 4))


def test_equals_resampling_the_utterances() -> None:
    problem = Problem()
    names = np.unique(problem.clusters)
    (counts,) = cluster_counts(problem.matrices(), 25, seed=3)
    found = seed_means(problem.matrices(), counts, scores)
    for draw, times in enumerate(counts):
        per_seed = []
        for seed in (0, 1):
            rows = np.concatenate(
                [
                    np.flatnonzero((problem.clusters == name) & (problem.seeds == seed))
                    for name, count in zip(names, times, strict=True)
                    for _ in range(count)
                ]
            )
            per_seed.append(scores(confusion(problem.labels[rows], problem.predictions[rows], 4)))
        for name, values in found.items():
            expected = np.mean([seed[name] for seed in per_seed])
            assert values[draw] == pytest.approx(expected, abs=1e-12)


def test_draws_as_many_clusters_as_there_are() -> None:
    counts = np.concatenate(list(cluster_counts(Problem().matrices(), 4000, seed=0)))
    assert counts.shape == (4000, 7)
    assert set(counts.sum(1)) == {7}
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.06)
    # with replacement: the variance of a multinomial count is 1 - 1/C
    np.testing.assert_allclose(counts.var(0), 1 - 1 / 7, atol=0.08)


def test_order_of_rows_does_not_matter() -> None:
    problem = Problem()
    shuffled = np.random.default_rng(1).permutation(len(problem.labels))
    assert bootstrap(problem.matrices(), scores) == bootstrap(problem.matrices(shuffled), scores)


def test_chunks_do_not_matter() -> None:
    matrices = Problem().matrices()
    whole = list(cluster_counts(matrices, 100, seed=5))
    parts = list(cluster_counts(matrices, 100, seed=5, chunk_bytes=10_000))
    assert len(whole) == 1
    assert len(parts) > 5
    np.testing.assert_array_equal(np.concatenate(parts), whole[0])


def test_the_generator_is_seeded() -> None:
    matrices = Problem().matrices()
    assert bootstrap(matrices, scores, seed=1) == bootstrap(matrices, scores, seed=1)
    assert bootstrap(matrices, scores, seed=1) != bootstrap(matrices, scores, seed=2)


def test_interval_surrounds_the_score() -> None:
    matrices = Problem().matrices()
    whole = {name: float(value.mean()) for name, value in scores(matrices.sum(1)).items()}
    for name, interval in bootstrap(matrices, scores).items():
        assert 0 <= interval.low < whole[name] < interval.high <= 1


def test_too_few_clusters_give_no_interval() -> None:
    """Those without an item do not count: they say nothing of how scores vary."""
    matrices = np.concatenate([Problem().matrices()[:, :4], np.zeros((2, 9, 4, 4), np.int64)], 1)
    assert bootstrap(matrices, scores) == {}
    assert cluster_draws(matrices, scores).interval("uar") is None


def test_alike_clusters_give_no_width() -> None:
    matrices = np.tile(Problem().matrices()[:, :1], (1, 9, 1, 1))
    for interval in bootstrap(matrices, scores).values():
        assert interval.high - interval.low < 1e-12


def test_draws_without_any_item_are_left_out() -> None:
    """Of three clusters one holds all items, each right: no draw can say anything but 1."""
    matrices = np.zeros((1, 3, 2, 2), np.int64)
    matrices[0, 1] = [[4, 0], [0, 3]]
    found = resample(matrices, scores)["accuracy"]
    empty = np.isnan(found)
    # the chance that three draws of three miss one
    assert empty.mean() == pytest.approx((2 / 3) ** 3, abs=0.04)
    assert set(found[~empty]) == {1.0}
    assert expanded_interval(found, 3) == ConfidenceInterval(1.0, 1.0)


@given(st.integers(2, 40), st.floats(0.1, 2), st.floats(-3, 3))
def test_intervals_of_normal_draws_are_those_of_student(n: int, width: float, mean: float) -> None:
    """Of C normal values the draws of the mean have the variance s^2 (C - 1) / C^2."""
    spread = width * np.sqrt((n - 1) / n)
    draws = stats.norm(mean, spread).ppf((np.arange(8000) + 0.5) / 8000)
    found = expanded_interval(draws, n)
    expected = stats.t(n - 1, loc=mean, scale=width).interval(0.95)
    allowed = 1e-3 * (expected[1] - mean)  # of 8,000 draws the quantiles are wrong by 5e-4
    assert (found.low, found.high) == pytest.approx(expected, rel=0, abs=allowed)


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_intervals_hold_the_percentiles_within_the_limits(n: int, seed: int) -> None:
    draws = np.random.default_rng(seed).beta(2, 0.5, 200)
    found = expanded_interval(draws, n, (0, 1))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert 0 <= found.low <= low < high <= found.high <= 1
    wider = expanded_interval(draws, n)
    assert (found.low, found.high) == (max(wider.low, 0), min(wider.high, 1))


def test_differences_are_cut_at_what_they_can_be() -> None:
    """One model is right about four of five speakers, the other one about the fifth."""
    right, wrong = [[5, 0], [0, 5]], [[0, 5], [5, 0]]
    one, other = (
        cluster_draws(np.array([[first] * 4 + [last]]), scores)
        for first, last in ((right, wrong), (wrong, right))
    )
    found, change = one.interval("uar"), one.change("uar", other)
    assert found is not None
    assert change is not None
    assert (found.high, change.high) == (1, 1)
    assert change.low == pytest.approx(2 * found.low - 1)
    assert limits("bias_arousal") == (-np.inf, np.inf)


def test_results_on_the_same_clusters_are_paired() -> None:
    """The draws know nothing of labels and models, so one more error costs in every draw."""
    problem = Problem()
    before = resample(problem.matrices(), scores)["accuracy"]
    right = np.flatnonzero(problem.predictions == problem.labels)
    for cluster in np.unique(problem.clusters):
        row = right[problem.clusters[right] == cluster][0]
        problem.predictions[row] = (problem.labels[row] + 1) % 4
    assert (resample(problem.matrices(), scores)["accuracy"] < before).all()


def _covered(draw_of: str, *, repetitions: int) -> float:
    """Share of problems whose interval for accuracy holds the truth, 0.6.

    40 speakers are understood to a degree of their own, Beta(3, 2) with mean 0.6, and say 15
    things each. Resampling utterances means that each is its own cluster.
    """
    rng = np.random.default_rng(11)
    held = 0
    for repetition in range(repetitions):
        chance = np.repeat(rng.beta(3, 2, size=40), 15)
        labels = np.zeros(600, np.int64)
        predictions = (rng.random(600) > chance).astype(np.int64)
        groups = np.arange(600) // 15 if draw_of == "speakers" else np.arange(600)
        shape = (1, int(groups.max()) + 1, 2)
        matrices = cluster_confusions(groups, labels, labels, predictions, shape)
        interval = bootstrap(matrices, scores, draws=400, seed=repetition)["accuracy"]
        held += interval.low <= 0.6 <= interval.high
    return held / repetitions


@pytest.mark.slow
def test_intervals_over_speakers_cover_the_truth() -> None:
    assert 0.90 <= _covered("speakers", repetitions=300) <= 0.985


@pytest.mark.slow
def test_intervals_over_utterances_would_not() -> None:
    assert _covered("utterances", repetitions=60) < 0.8
