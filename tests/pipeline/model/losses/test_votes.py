"""Losses of distributions of votes: identities between them, precision, and even votes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.model.losses import votes
from pipeline.model.losses.classes import (
    BalancedCrossEntropy,
    CrossEntropy,
    LogitAdjustedCrossEntropy,
    balanced_weights,
)

LOGITS = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SHARES = torch.tensor(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.4, 0, 0], [0.2, 0.2, 0.2, 0.4], [0.25] * 4, [0, 0, 0, 1]],
    dtype=torch.float64,
)
LABELS = torch.tensor([0, 1, 2, 3, 0, 0])
ONE_HOT = F.one_hot(LABELS).double()
WEIGHTS = balanced_weights(torch.tensor([30, 10, 2, 8]), 50)
PRIOR = torch.tensor([0.6, 0.2, 0.04, 0.16], dtype=torch.float64)


def test_soft_cross_entropy_is_torchs_and_differs_from_kl_by_the_entropy_of_the_votes() -> None:
    soft = votes.soft_ce(LOGITS, SHARES)
    torch.testing.assert_close(soft, F.cross_entropy(LOGITS, SHARES))
    entropy = -torch.xlogy(SHARES, SHARES).sum(1).mean()
    torch.testing.assert_close(votes.kl(LOGITS, SHARES), soft - entropy)


def test_hard_labels_are_shares_of_one_class() -> None:
    torch.testing.assert_close(votes.soft_ce(LOGITS, ONE_HOT), CrossEntropy()(LOGITS, LABELS))
    balanced = BalancedCrossEntropy(WEIGHTS)(LOGITS, LABELS)
    torch.testing.assert_close(balanced, votes.balanced_soft_ce(LOGITS, ONE_HOT, WEIGHTS))
    torch.testing.assert_close(balanced, votes.weighted(LOGITS, ONE_HOT, WEIGHTS))
    torch.testing.assert_close(
        LogitAdjustedCrossEntropy(PRIOR)(LOGITS, LABELS),
        votes.logit_adjusted(LOGITS, ONE_HOT, PRIOR),
    )
    torch.testing.assert_close(
        votes.focal(LOGITS, SHARES, alpha=1.0, gamma=0.0), votes.soft_ce(LOGITS, SHARES)
    )


@pytest.mark.parametrize(
    "criterion", [BalancedCrossEntropy(WEIGHTS), LogitAdjustedCrossEntropy(PRIOR)]
)
def test_parts_add_up_by_their_rows_and_nothing_is_saved(
    criterion: BalancedCrossEntropy | LogitAdjustedCrossEntropy,
) -> None:
    parts = [criterion(LOGITS[i : i + 3], LABELS[i : i + 3]) for i in (0, 3)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, criterion(LOGITS, LABELS))
    assert criterion.size(LABELS) == len(LABELS)
    assert not criterion.state_dict()


def test_logit_adjustment_by_an_even_prior_changes_nothing() -> None:
    even = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(
        votes.logit_adjusted(LOGITS, SHARES, even), votes.soft_ce(LOGITS, SHARES)
    )


def test_a_class_without_items_has_no_weight() -> None:
    with pytest.raises(ValueError, match=r"counts of classes are \[5, 0\]; expected at least 1"):
        balanced_weights(torch.tensor([5, 0]), 5)
    with pytest.raises(ValueError, match="expected shares above 0"):
        LogitAdjustedCrossEntropy(torch.tensor([1.0, 0.0]))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=12).filter(any), st.booleans())
@example([1] * 9, True)
def test_counts_decide_exactly_which_classes_are_named(counts: list[int], half: bool) -> None:
    exact = [len(counts) * count > sum(counts) for count in counts]
    dtype = torch.float32 if half else torch.float64
    shares = torch.from_numpy(np.array(counts) / sum(counts)).to(dtype)[None]
    assert votes.named(shares)[0].tolist() == exact
    # Smoothing leaves each share on its side of 1 / K, and 1 / K itself but for the last digit.
    for smoothing in (0.05, 0.1, 0.3):
        assert votes.named(votes.smoothed(shares, smoothing))[0].tolist() == exact


def test_half_precision_is_computed_in_float32() -> None:
    logits, shares = LOGITS.half(), SHARES.float()
    found = {
        "soft_ce": votes.soft_ce(logits, shares),
        "kl": votes.kl(logits, shares),
        "balanced": votes.balanced_soft_ce(logits, shares, WEIGHTS.float()),
        "weighted": votes.weighted(logits, shares, WEIGHTS.float()),
        "adjusted": votes.logit_adjusted(logits, shares, PRIOR.float()),
        "focal": votes.focal(logits, shares, 1.0, 2.0),
        "bce": votes.multilabel_bce(logits, shares),
    }
    assert {value.dtype for value in found.values()} == {torch.float32}
