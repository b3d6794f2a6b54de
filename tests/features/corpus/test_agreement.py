"""Agreement of raters: against pairs written out, and what a rater's habits may not change."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.agreement import (
    Floats,
    Judgements,
    fleiss_kappa,
    krippendorff_alpha,
    rater_accuracy,
    rater_ccc,
    rater_normalised,
    rater_weights,
    weighted_means,
)


def table(matrix: Any) -> Judgements:
    """Ratings of a matrix of utterances and raters; NaN where a rater gave none."""
    values = np.asarray(matrix, float)
    items, raters = np.nonzero(~np.isnan(values))
    return Judgements(items, raters, values[items, raters], *values.shape)


def ratings(seed: int, items: int = 15, raters: int = 4) -> Floats:
    """Integers from 1 to 5, about a third of them missing."""
    generator = np.random.default_rng(seed)
    matrix = generator.integers(1, 6, (items, raters)).astype(float)
    matrix[generator.random(matrix.shape) < 0.3] = np.nan
    return matrix


def alpha_by_pairs(matrix: Floats, level: str) -> float:
    """Alpha as it is defined, with every pair of ratings written out."""
    units = [row[~np.isnan(row)] for row in matrix]
    units = [unit for unit in units if len(unit) > 1]
    everything = np.concatenate(units)
    order = np.sort(everything)

    def distance(a: float, b: float) -> float:
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        low, high = min(a, b), max(a, b)
        between = ((order >= low) & (order <= high)).sum()
        return float(between - ((order == a).sum() + (order == b).sum()) / 2) ** 2

    observed = sum(
        distance(a, b) / (len(unit) - 1)
        for unit in units
        for a, b in itertools.permutations(unit, 2)
    ) / len(everything)
    pairs = [distance(a, b) for a, b in itertools.permutations(everything, 2)]
    return float(1 - observed / np.mean(pairs))


@given(st.integers(0, 10**6), st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_that_of_all_pairs(seed: int, level: Any) -> None:
    matrix = ratings(seed)
    assert krippendorff_alpha(table(matrix), level) == pytest.approx(
        alpha_by_pairs(matrix, level), abs=1e-10
    )


def test_agreement_of_raters_who_always_agree_and_of_one_value() -> None:
    matrix = np.repeat(np.arange(1.0, 6)[:, None], 3, axis=1)
    assert krippendorff_alpha(table(matrix), "nominal") == pytest.approx(1)
    assert krippendorff_alpha(table(matrix), "ordinal") == pytest.approx(1)
    assert krippendorff_alpha(table(matrix), "interval") == pytest.approx(1)
    assert fleiss_kappa(table(matrix)) == pytest.approx(1)
    assert np.isnan(krippendorff_alpha(table(np.ones((4, 3))), "interval"))
    assert np.isnan(fleiss_kappa(table(np.ones((4, 3)))))


def test_kappa_needs_as_many_ratings_of_each_utterance() -> None:
    with pytest.raises(ValueError, match=r"2 to 3 ratings an utterance; .* Krippendorff's alpha"):
        fleiss_kappa(table([[1, 1, 2], [1, np.nan, 2]]))


def test_estimates_follow_raters_who_follow_the_others() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(1, 7, 40)
    good = truth[:, None] + generator.normal(0, 0.3, (40, 3))
    matrix = np.column_stack([good, 8 - truth, generator.uniform(1, 7, 40)])
    weights = rater_weights(table(matrix))
    assert weights[:3].min() > 0.5
    assert weights[3] == 0  # reversed: not counted, rather than turned around
    assert weights[4] < 0.5
    errors = [
        np.sqrt(np.mean((weighted_means(table(matrix), w) - truth) ** 2))
        for w in (weights, np.ones(5))
    ]
    assert errors[0] < errors[1]


def test_raters_who_are_known_too_little_get_the_mean_weight() -> None:
    matrix = np.column_stack([ratings(1, 30), np.full(30, np.nan)])
    matrix[:9, 4] = 3 + np.arange(9) % 2
    weights = rater_weights(table(matrix))
    assert weights[4] == pytest.approx(weights[:4].mean())
    assert np.isnan(rater_ccc(table(matrix))[4])
    alone = table([[1.0, np.nan], [2.0, np.nan], [np.nan, 3.0]])
    assert rater_weights(alone).tolist() == [1, 1]
    assert weighted_means(alone, np.zeros(2)).tolist() == [1, 2, 3]


def test_a_tie_of_the_others_is_no_comparison() -> None:
    hits, compared, without = rater_accuracy(
        table([[0, 0, 1], [0, 1, 2], [2, np.nan, np.nan], [1, 1, np.nan]])
    )
    # First row: 0 against (0, 1) tie, twice; 1 against (0, 0) misses. Last row: both hit.
    assert (hits, compared, without) == (2, 3, 6)


def test_normalising_undoes_shift_and_gain_of_raters() -> None:
    generator = np.random.default_rng(3)
    truth = generator.uniform(2, 6, 25)
    gains, shifts = np.array([0.5, 1.0, 1.5]), np.array([-1.0, 0.0, 1.0])
    mean = rater_normalised(table(truth[:, None] * gains + shifts))
    np.testing.assert_allclose(np.corrcoef(mean, truth)[0, 1], 1)
    same = rater_normalised(table(np.full((12, 2), 3.0)))
    np.testing.assert_allclose(same, 3.0)


def test_unknown_ratings_are_left_out_and_never_numbers() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Judgements(np.array([0]), np.array([0]), np.array([np.nan]), 1, 1)
