"""Vectors that an utterance's frames are reduced to are numpy's statistics of its own frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray

from features.backbone.base import Inputs, Pooled, Reads, Statistic
from features.corpus.utterance import Utterance
from features.stream import Stream, StreamSpec
from pipeline.model.inputs import LayerMix

OF_NUMPY: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": lambda frames: frames.mean(0),
    "first": lambda frames: frames[0],
    "std": lambda frames: frames.std(0),
    "mean_std": lambda frames: np.concatenate([frames.mean(0), frames.std(0)]),
}


class Held:
    """A backbone whose frames are given."""

    reads: Reads = "audio"
    trainable = True

    def __init__(self, frames: Sequence[torch.Tensor], layers: int = 1) -> None:
        self.stream = Stream.pad(frames)
        self.spec = StreamSpec(self.stream.values.shape[-1], hop_seconds=0.02, layers=layers)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        return Inputs.of(utterances)

    def __call__(self, inputs: Inputs) -> Stream:  # noqa: ARG002  its frames are given
        return self.stream

    def provenance(self) -> dict[str, Any]:
        return {}


def pooled(frames: Sequence[torch.Tensor], how: Statistic, layers: int = 1) -> Stream:
    backbone = Pooled(Held(frames, layers), how)
    stream = backbone(Inputs((), {}))
    assert stream.values.shape == (len(frames), 1, backbone.spec.dim)
    assert (backbone.spec.layers, backbone.spec.hop_seconds) == (layers, None)
    return stream


@pytest.mark.parametrize("how", get_args(Statistic))
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), offset=st.floats(-1e3, 1e3))
def test_a_batch_holds_the_statistics_of_each(
    how: Statistic, lengths: list[int], offset: float
) -> None:
    """Around any level: the deviation is not a difference of large squares."""
    frames = [offset + torch.randn(length, 3, dtype=torch.float64) for length in lengths]
    stream = pooled(frames, how)
    assert stream.mask.all()
    for found, own in zip(stream.values[:, 0], frames, strict=True):
        assert np.allclose(found, OF_NUMPY[how](own.numpy()), atol=1e-9)


@given(length=st.integers(1, 9), layers=st.integers(1, 4), weights=st.data())
def test_layers_keep_their_statistics_together(
    length: int, layers: int, weights: st.DataObject
) -> None:
    """So that a mix of layers is the same mix of means beside that of deviations."""
    frames = torch.randn(length, layers, 5)
    stream = pooled([frames.flatten(1)], "mean_std", layers)
    mix = LayerMix(layers)
    with torch.no_grad():
        mix.weights.copy_(
            torch.tensor(weights.draw(st.lists(st.floats(-2, 2), min_size=layers, max_size=layers)))
        )
        share = mix.weights.softmax(0)[:, None]
        found = mix(stream.values)[0, 0]
    expected = [(share * x).sum(0) for x in (frames.mean(0), frames.std(0, correction=0))]
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)


def test_one_frame_deviates_by_nothing_and_none_is_no_vector() -> None:
    frames = [torch.full((1, 2), 0.1), torch.zeros(0, 2), torch.randn(2, 2)]
    stream = pooled(frames, "mean_std")
    assert stream.values[0, 0].tolist() == pytest.approx([0.1, 0.1, 0, 0])
    assert stream.values[0, 0, 2:].tolist() == [0, 0]
    assert stream.values[1].tolist() == [[0, 0, 0, 0]]
    assert stream.mask.tolist() == [[True], [False], [True]]


def test_gradients_are_those_of_the_formula_and_0_where_nothing_deviates() -> None:
    """A root's own gradient would be infinite there, and NaN behind it."""
    ragged = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    flat, one = (torch.ones(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 1))
    found = torch.autograd.grad(
        pooled([ragged, flat, one], "std").values.sum(), [ragged, flat, one]
    )
    (expected,) = torch.autograd.grad(ragged.std(0, correction=0).sum(), ragged)
    assert torch.allclose(found[0], expected)
    assert not found[1].any()
    assert not found[2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deviations_of_half_precision_neither_overflow_nor_round(dtype: torch.dtype) -> None:
    frames = (1000 * torch.randn(300, 4)).to(dtype)
    found = pooled([frames, frames[:1]], "std").values[0, 0]
    assert torch.allclose(found, frames.float().std(0, correction=0), rtol=1e-5)
