"""Padding changes no result and can be removed."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given

from features.stream import Stream, StreamSpec

lengths = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(lengths, st.integers(1, 4))
def test_unpad_inverts_pad(lengths: list[int], width: int) -> None:
    sequences = [torch.randn(length, width) for length in lengths]
    back = Stream.pad(sequences).unpad()
    assert all(torch.equal(a, b) for a, b in zip(sequences, back, strict=True))


@given(lengths)
def test_mean_sees_only_frames_that_exist(lengths: list[int]) -> None:
    sequences = [torch.randn(length, 3, dtype=torch.float64) for length in lengths]
    stream = Stream.pad(sequences)
    garbage = stream.values.masked_fill(~stream.mask[..., None], 1e6)
    expected = [s.mean(0) if len(s) else torch.zeros(3, dtype=torch.float64) for s in sequences]
    assert torch.allclose(Stream(garbage, stream.mask).mean(), torch.stack(expected))


def test_bins_stay_integers() -> None:
    stream = Stream.pad([torch.tensor([3, 4]), torch.tensor([5])]).to("cpu", dtype=torch.float64)
    assert stream.values.dtype == torch.int64
    assert stream.values.tolist() == [[3, 4], [5, 0]]


def test_spec_survives_json() -> None:
    spec = StreamSpec(dim=1, bins=256, hop_seconds=0.02)
    assert StreamSpec(**spec.to_dict()) == spec
