"""Scores of attributes: sums add up, and give what textbook formulas give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.attributes import SCORES, attribute_scores, attribute_sums
from pipeline.metrics.classes import Floats

MIDDLES = [4.0, 3.0]


def values(seed: int, items: int) -> tuple[Floats, Floats]:
    """Truth and predictions of two attributes; some values of the second are unknown."""
    generator = np.random.default_rng(seed)
    truth = generator.uniform(1, 7, (items, 2))
    prediction = truth + generator.normal(0.3, 1.0, (items, 2))
    truth[generator.random(items) < 0.3, 1] = np.nan
    return truth, prediction


@given(st.integers(0, 10**6), st.integers(8, 60))
def test_sums_add_up_over_groups(seed: int, items: int) -> None:
    truth, prediction = values(seed, items)
    groups = np.random.default_rng(seed).integers(0, 4, items)
    parts = attribute_sums(truth, prediction, groups, 4, MIDDLES)
    whole = attribute_sums(truth, prediction, np.zeros(items, int), 1, MIDDLES)
    np.testing.assert_allclose(parts.sum(0), whole[0], rtol=1e-12, atol=1e-12)
    for group in range(4):
        here = groups == group
        own = attribute_sums(truth[here], prediction[here], groups[here], 4, MIDDLES)
        np.testing.assert_allclose(parts[group], own[group], rtol=1e-12, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(8, 60))
def test_scores_are_those_of_the_items(seed: int, items: int) -> None:
    truth, prediction = values(seed, items)
    sums = attribute_sums(truth, prediction, np.zeros(items, int), 1, MIDDLES)[0]
    found = attribute_scores(sums)
    assert tuple(found) == SCORES
    for a in range(2):
        known = ~np.isnan(truth[:, a])
        x, y = prediction[known, a], truth[known, a]
        if len(y) < 3:
            continue
        covariance = np.cov(x, y, ddof=0)
        bottom = covariance[0, 0] + covariance[1, 1] + (x.mean() - y.mean()) ** 2
        expected = {
            "ccc": 2 * covariance[0, 1] / bottom,
            "pearson": np.corrcoef(x, y)[0, 1],
            "rmse": np.sqrt(np.mean((x - y) ** 2)),
            "mae": np.mean(np.abs(x - y)),
            "bias": x.mean() - y.mean(),
            "sd_ratio": x.std() / y.std(),
        }
        assert {name: value[a] for name, value in found.items()} == pytest.approx(
            expected, rel=1e-9, abs=1e-9
        )


@given(st.floats(1, 7), st.lists(st.floats(1, 7), min_size=2, max_size=40), st.booleans())
def test_a_constant_side_has_concordance_0_or_none(
    constant: float, other: list[float], of_truth: bool
) -> None:
    """Never what rounding leaves of it, and never a correlation."""
    same = np.full((len(other), 1), constant)
    pair = (same, np.array(other)[:, None])
    truth, prediction = pair if of_truth else pair[::-1]
    sums = attribute_sums(truth, prediction, np.zeros(len(other), int), 1, [4.0])
    found = {name: float(value[0, 0]) for name, value in attribute_scores(sums).items()}
    assert np.isnan(found["pearson"])
    assert found["ccc"] == 0 or (np.isnan(found["ccc"]) and found["rmse"] < 1e-4)


def test_undefined_is_not_a_number() -> None:
    truth, prediction = np.array([[np.nan], [3.0]]), np.array([[1.0], [2.0]])
    scores = attribute_scores(attribute_sums(truth, prediction, [0, 1], 2, [4.0]))
    assert all(np.isnan(value[0, 0]) for value in scores.values())
    assert {name for name, value in scores.items() if np.isnan(value[1, 0])} == {
        *("ccc", "pearson", "sd_ratio")
    }


@pytest.mark.parametrize(("truth", "prediction"), [(np.inf, 1.0), (1.0, np.nan), (1.0, np.inf)])
def test_what_is_not_finite_is_refused(truth: float, prediction: float) -> None:
    with pytest.raises(ValueError, match=r"item 1, attribute 0: .* is not finite"):
        attribute_sums([[1.0], [truth]], [[1.0], [prediction]], [0, 0], 1, [4.0])
