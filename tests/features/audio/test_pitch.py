"""Bins and the 20 ms track equal the reference implementation's, and bins invert."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from features.audio import pitch
from tests.support.models.golden import golden


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


@given(
    st.integers(4, 32767).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))),
    st.floats(20, 200),
    st.floats(400, 4000),
)
def test_bins_invert(case: tuple[int, int], f_min: float, f_max: float) -> None:
    bins, index = case
    hz = pitch.bin_to_hz(np.array([index]), bins=bins, f_min=f_min, f_max=f_max)
    assert pitch.hz_to_bin(hz, bins=bins, f_min=f_min, f_max=f_max).tolist() == [index]


@given(st.integers(4, 32767), st.floats(50, 1100))
def test_a_bin_is_within_half_a_step_of_its_frequency(bins: int, hz: float) -> None:
    centre = pitch.bin_to_hz(pitch.hz_to_bin(np.array([hz]), bins=bins), bins=bins)
    step = (pitch.hz_to_mel(1100.0) - pitch.hz_to_mel(50.0)) / (bins - 2)
    assert abs(pitch.hz_to_mel(centre)[0] - pitch.hz_to_mel(hz)) <= step / 2 + 1e-9


@given(st.floats(0, 8000))
def test_mel_inverts(hz: float) -> None:
    assert float(pitch.mel_to_hz(pitch.hz_to_mel(hz))) == pytest.approx(hz, abs=1e-6)


def test_fully_unvoiced_audio_is_a_result() -> None:
    silent = pitch.interpolate_unvoiced(np.zeros(5))
    assert pitch.hz_to_bin(silent).tolist() == [1] * 5
