"""Attentive statistics pooling follows its two papers' formulas, frame by frame in numpy."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray

from features.stream import Stream
from pipeline.model.attentive_statistics import AttentiveStatistics

WIDTH, HIDDEN = 3, 4
both = pytest.mark.parametrize("by_channel", [False, True])


def layer(*, by_channel: bool) -> AttentiveStatistics:
    torch.manual_seed(0)
    return AttentiveStatistics(WIDTH, HIDDEN, by_channel=by_channel).double()


def expected(pool: AttentiveStatistics, frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of one utterance `[T, D]`: the formulas, with the statistics beside each frame."""
    w, b = pool.frame.weight.detach().numpy(), pool.frame.bias.detach().numpy()
    v = pool.score.weight.detach().numpy()
    seen = frames
    if pool.context is not None:
        w = np.concatenate([w, pool.context.weight.detach().numpy()], axis=1)
        context = np.concatenate([frames.mean(0), frames.std(0)])
        seen = np.concatenate([frames, np.tile(context, (len(frames), 1))], axis=1)
    scores = np.stack([v @ np.tanh(w @ h + b) for h in seen])
    shares = np.exp(scores) / np.exp(scores).sum(0)
    mean = (shares * frames).sum(0)
    return np.concatenate([mean, np.sqrt((shares * (frames - mean) ** 2).sum(0))])


@both
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_batch_holds_what_the_papers_say_of_each(by_channel: bool, lengths: list[int]) -> None:
    pool = layer(by_channel=by_channel)
    frames = [torch.randn(length, WIDTH, dtype=torch.float64) for length in lengths]
    with torch.inference_mode():
        stream = pool(Stream.pad(frames))
    assert stream.mask.tolist() == [[True]] * len(lengths)
    for found, own in zip(stream.values[:, 0], frames, strict=True):
        assert np.allclose(found, expected(pool, own.numpy()), atol=1e-9)


@both
def test_equal_scores_are_plain_statistics(by_channel: bool) -> None:
    pool = layer(by_channel=by_channel)
    torch.nn.init.zeros_(pool.score.weight)
    stream = Stream.pad([torch.randn(n, WIDTH, dtype=torch.float64) for n in (5, 1, 3)])
    plain = torch.cat([stream.mean(), stream.std()], dim=-1)
    assert torch.allclose(pool(stream).values[:, 0], plain)


@both
def test_gradients_are_finite_where_nothing_deviates_or_exists(by_channel: bool) -> None:
    """Of one frame, of equal ones, and of none, whose vector is zeros."""
    pool = layer(by_channel=by_channel)
    frames = [torch.ones(n, WIDTH, dtype=torch.float64) for n in (1, 4, 0)]
    stream = Stream.pad([*frames, torch.randn(4, WIDTH, dtype=torch.float64)])
    values = stream.values.requires_grad_()
    found = pool(Stream(values, stream.mask))
    assert found.mask.tolist() == [[True], [True], [False], [True]]
    assert not found.values[2].any()
    for gradient in torch.autograd.grad(found.values.sum(), [values, *pool.parameters()]):
        assert gradient.isfinite().all()
        assert gradient.any()
