"""Convolutions by Fourier transforms are convolutions, and so are their gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from features.networks.fourier_convolution import fourier_convolution

SIZES = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 17), st.integers(0, 9)
)


def made(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@given(sizes=SIZES, batch=st.integers(1, 3), more=st.integers(0, 70), biased=st.booleans())
@settings(deadline=None, max_examples=60)
def test_values_and_gradients_are_those_of_conv1d(
    sizes: tuple[int, int, int, int, int], batch: int, more: int, biased: bool
) -> None:
    groups, inputs, outputs, kernel, padding = sizes
    time = max(1, kernel - 2 * padding) + more
    torch.manual_seed(0)
    frames, weight = made(batch, groups * inputs, time), made(groups * outputs, inputs, kernel)
    bias = made(groups * outputs) if biased else None
    theirs = F.conv1d(frames, weight, bias, padding=padding, groups=groups)
    ours = fourier_convolution(frames, weight, bias, padding=padding, groups=groups)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-10)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    leaves = [frames, weight] if bias is None else [frames, weight, bias]
    expected = torch.autograd.grad((theirs * weights).sum(), leaves)
    found = torch.autograd.grad((ours * weights).sum(), leaves)
    assert all(
        torch.allclose(one, other, atol=1e-9) for one, other in zip(found, expected, strict=True)
    )


def test_single_precision_keeps_six_digits() -> None:
    torch.manual_seed(0)
    frames, weight = torch.randn(2, 96, 400), torch.randn(96, 6, 128) / 28
    theirs = F.conv1d(frames.double(), weight.double(), padding=64, groups=16)
    ours = fourier_convolution(frames, weight, padding=64, groups=16)
    assert float((ours - theirs).abs().max()) < 2e-6 * float(theirs.abs().max())
