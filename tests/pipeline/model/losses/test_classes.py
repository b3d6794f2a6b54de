"""Losses against their formulas, written out term by term, and against golden numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.model.losses.classes import BinaryCrossEntropy, CrossEntropy, Focal, class_weights
from pipeline.params.training import TrainParams
from pipeline.training.criteria import make_criterion
from tests.support.models.golden import golden

COUNTS = torch.tensor([10, 5, 1, 4])
WEIGHTS = [2.0, 4.0, 20.0, 5.0]


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 3, 0, 0])


def probabilities(logits: torch.Tensor) -> list[list[float]]:
    """Softmax by row, without torch."""
    rows = []
    for row in logits.tolist():
        powers = [math.exp(value) for value in row]
        rows.append([power / sum(powers) for power in powers])
    return rows


def test_weights_are_n_over_n_c() -> None:
    assert class_weights(COUNTS).tolist() == WEIGHTS
    assert class_weights(torch.tensor([3, 0, 1])).tolist() == [pytest.approx(4 / 3), 4.0, 4.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(logits: torch.Tensor, weighted: bool) -> None:
    each = [-math.log(p[c]) for p, c in zip(probabilities(logits), LABELS.tolist(), strict=True)]
    weights = [WEIGHTS[c] if weighted else 1.0 for c in LABELS.tolist()]
    total = sum(w * loss for w, loss in zip(weights, each, strict=True))
    found = make_criterion(TrainParams(loss="weighted_ce" if weighted else "ce"), COUNTS)
    assert float(found(logits, LABELS)) == pytest.approx(total / sum(weights), rel=1e-6)
    assert found.size(LABELS) == sum(weights)


def test_weighted_cross_entropy_is_the_public_one() -> None:
    """nll_weighted of SDT: the sum over valid turns over the sum of their weights."""
    saved = golden("gates_losses.npz")
    valid = saved["mask"].astype(bool)
    criterion = CrossEntropy(torch.from_numpy(saved["class_weights"]))
    for name in ("main", "text", "audio"):
        rows = torch.from_numpy(saved[f"logits_{name}"][valid])
        labels = torch.from_numpy(saved["labels"][valid])
        for key, found in (("nll_weighted", criterion), ("nll", CrossEntropy())):
            expected = float(saved[f"{key}_{name}"])
            assert float(found(rows, labels)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_focal(logits: torch.Tensor, weighted: bool) -> None:
    total = 0.0
    for p, c in zip(probabilities(logits), LABELS.tolist(), strict=True):
        weight = WEIGHTS[c] if weighted else 1.0
        total += -0.25 * weight * (1 - p[c]) ** 3 * math.log(p[c])
    name: Any = "weighted_focal" if weighted else "focal"
    found = make_criterion(TrainParams(loss=name, focal_alpha=0.25, focal_gamma=3.0), COUNTS)
    assert float(found(logits, LABELS)) == pytest.approx(total / 6, rel=1e-5)
    assert found.size(LABELS) == 6


def test_focal_without_focus_is_cross_entropy(logits: torch.Tensor) -> None:
    for smoothing in (0.0, 0.3):
        expected = CrossEntropy(smoothing=smoothing)(logits, LABELS)
        assert torch.allclose(Focal(1.0, 0.0, smoothing=smoothing)(logits, LABELS), expected)


def test_label_smoothing_mixes_with_the_uniform(logits: torch.Tensor) -> None:
    """(1 - e) CE + e times the mean over all classes of -log p."""
    plain = CrossEntropy()(logits, LABELS)
    even = -logits.log_softmax(1).mean()
    smooth = make_criterion(TrainParams(label_smoothing=0.2), COUNTS)(logits, LABELS)
    assert torch.allclose(smooth, 0.8 * plain + 0.2 * even)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("focal", [False, True])
def test_mixup_has_a_binary_loss_for_each_class(
    logits: torch.Tensor, weighted: bool, focal: bool
) -> None:
    shares = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for row, wanted in zip(logits.tolist(), shares.tolist(), strict=True):
        for c, (x, y) in enumerate(zip(row, wanted, strict=True)):
            p = 1 / (1 + math.exp(-x))
            present, absent = -y * math.log(p), -(1 - y) * math.log(1 - p)
            if focal:
                present, absent = 0.3 * (1 - p) ** 2 * present, 0.7 * p**2 * absent
            total += (present + absent) * (WEIGHTS[c] if weighted else 1.0)
    name: Any = ("weighted_" if weighted else "") + ("focal" if focal else "ce")
    found = make_criterion(TrainParams(loss=name, mixup=0.1, focal_alpha=0.3), COUNTS)
    assert isinstance(found, BinaryCrossEntropy)
    assert float(found(logits, shares)) == pytest.approx(total / 24, rel=1e-5)


def test_binary_loss_takes_classes_as_well_as_shares(logits: torch.Tensor) -> None:
    """So that the validation split, which is not mixed, is scored by the same loss."""
    criterion = BinaryCrossEntropy()
    shares = torch.eye(4)[LABELS]
    assert torch.equal(criterion(logits, LABELS), criterion(logits, shares))
    expected = torch.nn.BCEWithLogitsLoss()(logits, shares)
    assert torch.allclose(criterion(logits, LABELS), expected)


@pytest.mark.parametrize("loss", ["ce", "weighted_ce", "focal", "weighted_focal"])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_extreme_logits_give_finite_losses_and_gradients(loss: Any, mixup: float) -> None:
    logits = torch.tensor([[100.0, -100, 0, 0], [-100, 100, 0, 0]], requires_grad=True)
    params = TrainParams(loss=loss, mixup=mixup, label_smoothing=0.1)
    value = make_criterion(params, COUNTS)(logits, torch.tensor([1, 1]))
    value.backward()
    assert logits.grad is not None
    assert math.isfinite(value.item())
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ["ce", "weighted_ce", "focal", "weighted_focal"])
def test_means_of_parts_add_up_by_their_sizes(logits: torch.Tensor, loss: Any) -> None:
    criterion = make_criterion(TrainParams(loss=loss), COUNTS)
    parts = [(logits[:2], LABELS[:2]), (logits[2:], LABELS[2:])]
    sizes = [criterion.size(labels) for _, labels in parts]
    losses = [float(criterion(*part)) for part in parts]
    expected = float(criterion(logits, LABELS))
    assert np.average(losses, weights=sizes) == pytest.approx(expected, rel=1e-6)


def test_a_criterion_has_nothing_to_save() -> None:
    criterion = make_criterion(TrainParams(loss="weighted_ce"), COUNTS)
    assert criterion.weights is not None
    assert not criterion.state_dict()
