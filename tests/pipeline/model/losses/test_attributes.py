"""Losses of attributes: gradients by complex steps, gaps, and batches that cannot be cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.losses.attributes import (
    CUTS,
    EPS,
    HUBER_DELTA,
    attribute_loss,
    ccc,
    learnable,
    pointwise,
)


def values(seed: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets of three attributes in float64, some of the targets unknown."""
    generator = np.random.default_rng(seed)
    targets = generator.random((rows, 3))
    targets[generator.random((rows, 3)) < 0.25] = np.nan
    return torch.from_numpy(generator.random((rows, 3))), torch.from_numpy(targets)


def complex_loss(predictions: Any, targets: Any) -> Any:
    """Mean of 1 - CCC of the attributes with two known rows, of complex predictions."""
    terms = []
    for x, y in zip(predictions.T, targets.T, strict=True):
        known = ~np.isnan(y)
        if known.sum() > 1:
            a, b = x[known], y[known]
            own, true = a - a.mean(), b - b.mean()
            bottom = (own**2).mean() + (true**2).mean() + (a.mean() - b.mean()) ** 2
            terms.append(1 - 2 * (own * true).mean() / (bottom + EPS))
    return np.mean(terms) if terms else 0.0


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_gradient_of_the_concordance_by_complex_steps(seed: int, rows: int) -> None:
    predictions, targets = values(seed, rows)
    predictions.requires_grad_()
    loss = ccc(predictions, targets)
    torch.autograd.backward(loss)
    plain, y = predictions.detach().numpy().astype(complex), targets.numpy()
    assert loss.item() == pytest.approx(np.real(complex_loss(plain, y)), abs=1e-12)
    assert predictions.grad is not None
    for place in np.ndindex(plain.shape):
        stepped = plain.copy()
        stepped[place] += 1e-30j
        expected = np.imag(complex_loss(stepped, y)) / 1e-30
        assert float(predictions.grad[place]) == pytest.approx(expected, rel=1e-8, abs=1e-10)
        assert not np.isnan(y[place]) or predictions.grad[place] == 0


@pytest.mark.parametrize("name", CUTS)
def test_unknown_targets_change_nothing(name: Any) -> None:
    """Whatever is predicted there, in a loss and in its gradient."""
    predictions, targets = values(1, 10)
    gap = targets.isnan()
    other = torch.where(gap, torch.tensor(1e6, dtype=torch.float64), predictions)
    assert gap.any()
    losses, gradients = [], []
    for x in (predictions, other):
        x = x.clone().requires_grad_()
        losses.append(attribute_loss(name, x, targets))
        torch.autograd.backward(losses[-1])
        gradients.append(x.grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", CUTS)
def test_half_precision_is_computed_in_float32(name: Any) -> None:
    predictions, targets = (x.half() for x in values(2, 10))
    found = attribute_loss(name, predictions, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, attribute_loss(name, predictions.float(), targets.float()))


@pytest.mark.parametrize("name", CUTS)
def test_losses_that_may_be_cut_are_means_over_pairs(name: Any) -> None:
    predictions, targets = (torch.nan_to_num(x, nan=0.5) for x in values(3, 8))
    whole = attribute_loss(name, predictions, targets)
    parts = [attribute_loss(name, predictions[i : i + 4], targets[i : i + 4]) for i in (0, 4)]
    assert bool(torch.isclose(whole, sum(parts, torch.zeros(())) / 2)) == CUTS[name]


def test_pointwise_losses_are_their_formulas() -> None:
    predictions, targets = values(4, 9)
    error = (predictions - targets)[~targets.isnan()].numpy()
    size = np.abs(error)
    huber = np.where(size <= HUBER_DELTA, error**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))
    for name, expected in {"mse": error**2, "mae": size, "huber": huber}.items():
        found = float(pointwise(name, predictions, targets))  # type: ignore[arg-type]
        assert found == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("name", CUTS)
def test_a_batch_that_teaches_nothing_has_loss_0(name: Any) -> None:
    predictions = torch.rand(3, 2, requires_grad=True)
    targets = torch.full((3, 2), torch.nan)
    assert not learnable(name, targets).any()
    loss = attribute_loss(name, predictions, targets)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert predictions.grad is not None
    assert not predictions.grad.any()
    targets[0, 0] = 0.5  # one known row teaches a pointwise loss, and no CCC
    assert bool(learnable(name, targets).any()) == CUTS[name]
