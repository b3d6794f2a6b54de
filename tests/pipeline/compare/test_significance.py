"""Permutation, McNemar and Holm against scipy and against explicit swaps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as oracle

from pipeline.compare.significance import holm, mcnemar, permutation_test
from pipeline.metrics.classes import MONITORS, Floats, Matrices, grouped_confusion, scores

Ints = NDArray[np.int64]
CLASSES = 3


class Problem:
    """Two runs of one seed on `units` speakers who say 2 to 9 things each."""

    def __init__(self, units: int = 8, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.units = units
        self.unit = np.repeat(np.arange(units), rng.integers(2, 10, size=units))
        size = len(self.unit)
        self.labels = rng.integers(0, CLASSES, size)
        self.guesses = [
            np.where(rng.random(size) < skill, self.labels, rng.integers(0, CLASSES, size))
            for skill in (0.4, 0.6)
        ]

    def pair(self) -> tuple[Floats, Floats]:
        first, second = (
            grouped_confusion(self.unit, self.units, self.labels, guess, CLASSES).astype(float)
            for guess in self.guesses
        )
        return first, second


def headline(matrices: Matrices) -> dict[str, Floats]:
    found = scores(matrices)
    return {name: found[name] for name in MONITORS}


def test_accuracy_equals_scipy() -> None:
    problem = Problem()
    hits = [
        np.bincount(problem.unit, guess == problem.labels, minlength=problem.units)
        for guess in problem.guesses
    ]
    expected = stats.permutation_test(
        hits,
        lambda first, second, axis: second.sum(axis) - first.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    found = permutation_test(problem.pair(), headline, "speaker")
    assert found.exact
    assert found.p["accuracy"] == pytest.approx(expected.pvalue, abs=1e-12)


def test_all_metrics_equal_swapping_the_predictions_themselves() -> None:
    problem = Problem(units=6, seed=3)
    by_hand = {
        "accuracy": oracle.accuracy_score,
        "uar": oracle.balanced_accuracy_score,
        "macro_f1": lambda y, g: oracle.f1_score(y, g, average="macro", zero_division=0),
        "weighted_f1": lambda y, g: oracle.f1_score(y, g, average="weighted", zero_division=0),
    }
    found = permutation_test(problem.pair(), headline, "speaker")
    assert found.differing == 6
    assert found.smallest == 2**-5
    one, other = problem.guesses
    for name, score in by_hand.items():
        gaps = []
        for swap in product([False, True], repeat=6):
            swapped = np.array(swap)[problem.unit]
            first, second = np.where(swapped, other, one), np.where(swapped, one, other)
            gaps.append(abs(score(problem.labels, second) - score(problem.labels, first)))
        expected = np.mean(np.array(gaps) >= gaps[0] - 1e-12)
        assert found.p[name] == pytest.approx(expected, abs=1e-12)


def test_random_swaps_estimate_the_exact_p() -> None:
    problem = Problem(units=14, seed=1)
    exact = permutation_test(problem.pair(), headline, "speaker")
    drawn = permutation_test(problem.pair(), headline, "speaker", permutations=8000)
    assert (exact.exact, exact.permutations) == (True, 2**13)
    assert (drawn.exact, drawn.permutations) == (False, 8000)
    assert drawn.smallest == 1 / 8001
    for name, p in exact.p.items():
        # 4 standard deviations of a share of 8,000 draws
        assert drawn.p[name] == pytest.approx(p, abs=4 * np.sqrt(p / 8000) + 1e-3)


@pytest.mark.parametrize("permutations", [9999, 2000])
def test_order_of_runs_does_not_matter(permutations: int) -> None:
    first, second = Problem(units=13, seed=2).pair()
    ahead = permutation_test((first, second), headline, "x", permutations=permutations)
    back = permutation_test((second, first), headline, "x", permutations=permutations)
    assert ahead == back
    assert ahead.exact == (permutations == 9999)


def test_equal_runs_give_p_1() -> None:
    first, _ = Problem().pair()
    found = permutation_test((first, first.copy()), headline, "speaker")
    assert (found.differing, found.smallest) == (0, 1.0)
    assert set(found.p.values()) == {1.0}


def test_units_predicted_alike_do_not_help() -> None:
    first, second = Problem(units=8).pair()
    more = tuple(np.concatenate([each, np.tile(first, (5, 1, 1))]) for each in (first, second))
    alone = permutation_test((first, second), headline, "speaker")
    found = permutation_test((more[0], more[1]), headline, "speaker")
    assert (alone.units, found.units) == (8, 48)
    assert (found.differing, found.smallest) == (alone.differing, alone.smallest)
    assert found.p["accuracy"] == alone.p["accuracy"]


@pytest.mark.parametrize("units", [5, 40])
def test_the_smallest_p_is_attained_where_all_units_agree(units: int) -> None:
    wrong, right = np.zeros((units, 2, 2)), np.zeros((units, 2, 2))
    wrong[:, 0, 1] = right[:, 0, 0] = 3
    found = permutation_test((wrong, right), headline, "speaker")
    assert found.smallest == (2**-4 if units == 5 else 1e-4)
    assert found.p["accuracy"] == found.smallest


def test_the_generator_is_seeded() -> None:
    pair = Problem(units=30).pair()
    one, again, other = (permutation_test(pair, headline, "x", seed=s) for s in (1, 1, 2))
    assert one == again
    assert one.p != other.p


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Problem(units=30).pair()
    whole = permutation_test(pair, headline, "x")
    monkeypatch.setattr("pipeline.compare.significance._CHUNK_BYTES", 10_000)
    assert permutation_test(pair, headline, "x") == whole


def _null(unit: str, *, problems: int) -> Floats:
    """Values `[problems]` of p for runs that are alike, but understand different speakers well.

    12 speakers of 15 utterances; how well a run understands a speaker is Beta(1, 1).
    """
    rng = np.random.default_rng(7)
    speaker = np.repeat(np.arange(12), 15)
    group = speaker if unit == "speaker" else np.arange(180)
    labels = np.zeros(180, np.int64)
    found = []
    for problem in range(problems):
        first, second = (
            grouped_confusion(
                group,
                int(group.max()) + 1,
                labels,
                (rng.random(180) > rng.beta(1, 1, 12)[speaker]).astype(np.int64),
                2,
            ).astype(float)
            for _ in range(2)
        )
        test = permutation_test((first, second), headline, unit, permutations=2048, seed=problem)
        found.append(test.p["accuracy"])
    return np.array(found)


@pytest.mark.slow
def test_p_is_uniform_where_runs_are_alike() -> None:
    p = _null("speaker", problems=600)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        # 4 standard deviations of the share, and p that comes in few steps
        margin = 4 * np.sqrt(level * (1 - level) / 600)
        assert abs(np.mean(p <= level) - level) < margin + 0.02


@pytest.mark.slow
def test_swapping_utterances_would_raise_false_alarms() -> None:
    assert np.mean(_null("utterance", problems=200) <= 0.05) > 0.3


def test_mcnemar_equals_the_binomial_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(60) < 0.5, rng.random(60) < 0.7
    found = mcnemar(first, second)
    lost, won = (first & ~second).sum(), (second & ~first).sum()
    assert (found.right_to_wrong, found.wrong_to_right) == (lost, won)
    assert found.p == pytest.approx(stats.binomtest(lost, lost + won).pvalue)
    assert mcnemar(second, first).p == found.p


def test_mcnemar_of_equal_runs_is_1() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right).p == 1.0


@pytest.mark.slow
@settings(max_examples=25)  # statsmodels collects garbage at each call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_method(p: list[float]) -> None:
    found = holm(p)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    np.testing.assert_allclose(np.array(found)[order], steps, atol=1e-12)
    assert all(adjusted >= each for adjusted, each in zip(found, p, strict=True))
    assert list(np.array(found)[order]) == sorted(found)
