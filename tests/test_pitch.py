"""Bins and the 20 ms track equal the reference implementation's, and bins invert."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from features import pitch
from tests.golden import golden


def test_bins_equal_the_reference() -> None:
    vectors = golden("f0_bins.npz")
    assert np.array_equal(pitch.hz_to_bin(vectors["hz"]), vectors["bins"])


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_track_equals_the_reference(name: str) -> None:
    vectors = golden("f0_bins.npz")
    frames = int(vectors[f"track_{name}_frames"])
    resized = pitch.resize_nearest(vectors[f"track_{name}_f0_10ms"].astype(np.float64), frames)
    filled = pitch.interpolate_unvoiced(resized)
    assert np.allclose(filled, vectors[f"track_{name}_f0_20ms"], atol=1e-3, rtol=0)
    assert np.array_equal(pitch.hz_to_bin(filled), vectors[f"track_{name}_bins"])


@given(st.integers(64, 512).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))))
def test_bins_invert(case: tuple[int, int]) -> None:
    bins, index = case
    hz = pitch.bin_to_hz(np.array([index]), bins=bins)
    assert pitch.hz_to_bin(hz, bins=bins).tolist() == [index]


@given(st.floats(0, 8000))
def test_mel_inverts(hz: float) -> None:
    assert float(pitch.mel_to_hz(pitch.hz_to_mel(hz))) == pytest.approx(hz, abs=1e-6)


def test_fully_unvoiced_audio_is_a_result() -> None:
    silent = pitch.interpolate_unvoiced(np.zeros(5))
    assert pitch.hz_to_bin(silent).tolist() == [1] * 5
