"""Scores of distributions against scipy and scikit-learn, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine, jensenshannon
from scipy.stats import entropy
from sklearn.metrics import f1_score

from pipeline.metrics.classes import Floats
from pipeline.metrics.votes import (
    VOTE_SCORES,
    entropy_strata,
    multilabel_counts,
    multilabel_macro_f1,
    named,
    normalised_entropy,
    plurality,
    vote_scores,
)


def shares(seed: int, items: int = 12, classes: int = 4) -> tuple[Floats, Floats]:
    """Votes of five raters as shares, and probabilities of a model."""
    generator = np.random.default_rng(seed)
    votes = generator.multinomial(5, generator.dirichlet(np.ones(classes)), items)
    return votes / 5, generator.dirichlet(np.ones(classes), items)


@given(st.integers(0, 10**6))
def test_scores_are_scipys(seed: int) -> None:
    truth, predicted = shares(seed)
    found = vote_scores(truth, predicted)
    assert tuple(found) == VOTE_SCORES
    for i, (t, q) in enumerate(zip(truth, predicted, strict=True)):
        expected = {
            "jsd": jensenshannon(t, q, base=2) ** 2,
            "kld": entropy(t, q),
            "total_variation": np.maximum(t - q, 0).sum(),
            "cosine": 1 - cosine(t, q),
            "brier_soft": np.sum((t - q) ** 2),
            "soft_nll": entropy(t) + entropy(t, q),
        }
        assert {name: float(value[i]) for name, value in found.items()} == pytest.approx(
            expected, rel=1e-9, abs=1e-9
        )


def test_the_right_distribution_has_nothing_to_lose() -> None:
    truth, _ = shares(0)
    found = vote_scores(truth, truth)
    for name in ("jsd", "kld", "total_variation", "brier_soft"):
        np.testing.assert_allclose(found[name], 0, atol=1e-12)
    np.testing.assert_allclose(found["cosine"], 1)


@given(st.lists(st.integers(0, 60), min_size=2, max_size=12).filter(any))
def test_shares_of_a_file_name_what_counts_name(votes: list[int]) -> None:
    """K v > R decides exactly; 9 digits of v / R, some of them above 1 / K, decide the same."""
    counts = np.array(votes)
    exact = len(counts) * counts > counts.sum()
    written = [float(f"{v / counts.sum():.9g}") for v in votes]
    assert named(written).tolist() == exact.tolist()


@given(st.integers(0, 10**6))
def test_multilabel_f1_is_that_of_scikit_learn_and_adds_up(seed: int) -> None:
    truth, predicted = (named(x) for x in shares(seed))
    groups = np.random.default_rng(seed).integers(0, 3, len(truth))
    counts = multilabel_counts(truth, predicted, groups, 3).sum(0)
    expected = f1_score(truth, predicted, average="macro", zero_division=0)
    assert float(multilabel_macro_f1(counts)) == pytest.approx(expected, abs=1e-12)


def test_strata_are_the_unanimous_and_terciles_of_the_rest() -> None:
    votes = np.array([[5, 0, 0], [0, 5, 0], [4, 1, 0], [0, 1, 4], [3, 2, 0], [3, 1, 1], [2, 2, 1]])
    names, strata = entropy_strata(normalised_entropy(votes / 5))
    assert [names[s] for s in strata] == [
        *("unanimous", "unanimous", "low", "low", "middle", "high", "high")
    ]


def test_a_tie_has_no_plurality() -> None:
    thirds = [round(1 / 3, 9)] * 3
    assert plurality([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], thirds]).tolist() == [1, -1, -1]
