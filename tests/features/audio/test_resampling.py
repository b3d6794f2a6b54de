"""Resampling against the formula of a windowed sinc, and what it does above and below 8 kHz."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from features.audio.resampling import BETA, ROLLOFF, ZERO_CROSSINGS, resampled
from features.backbone.entry import BackboneEntry, fingerprint
from features.backbones.tone import Tone

TO_HZ = 16_000
RATES_HZ = (8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
Samples = NDArray[np.float32]


def whole(samples: Samples, from_hz: int, block: int = 2**20) -> Samples:
    blocks = (samples[at : at + block] for at in range(0, len(samples), block))
    return np.concatenate(list(resampled(blocks, from_hz, TO_HZ)))


def by_formula(samples: Samples, from_hz: int) -> NDArray[np.float64]:
    """Each sample of the result as a sum over all of the old ones, in double precision."""
    edge_hz = min(from_hz, TO_HZ) * ROLLOFF
    out = np.arange(-(-len(samples) * TO_HZ // from_hz)) / TO_HZ
    t = (np.arange(len(samples)) / from_hz - out[:, None]) * edge_hz
    inside = np.clip(1 - (t / ZERO_CROSSINGS) ** 2, 0, None)
    window = np.where(inside > 0, np.i0(BETA * np.sqrt(inside)) / np.i0(BETA), 0)
    kernel: NDArray[np.float64] = np.sinc(t) * window * edge_hz / from_hz
    return kernel @ samples.astype(np.float64)


@pytest.mark.parametrize("from_hz", RATES_HZ)
def test_it_is_the_windowed_sinc_of_its_settings(from_hz: int) -> None:
    """The settings in the provenance determine the samples."""
    noise = np.random.default_rng(0).standard_normal(1_501).astype(np.float32)
    expected = by_formula(noise, from_hz)
    found = whole(noise, from_hz)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 4e-6
    for block in (1, 7, 640, 1_500):
        np.testing.assert_allclose(whole(noise, from_hz, block), found, atol=4e-6)


@pytest.mark.parametrize("from_hz", RATES_HZ)
@pytest.mark.parametrize("length", [1, 2, 160, 161, 4_410, 4_411])
def test_the_number_of_samples_is_exact(from_hz: int, length: int) -> None:
    ones = np.ones(length, np.float32)
    assert len(whole(ones, from_hz)) == -(-length * TO_HZ // from_hz)


def gain_db(hz: float, from_hz: int) -> float:
    tone = np.sin(2 * np.pi * hz * np.arange(from_hz) / from_hz).astype(np.float32)
    inner = whole(tone, from_hz)[1_600:-1_600].astype(np.float64)
    return float(10 * np.log10(2 * (inner**2).mean()))


@pytest.mark.parametrize("from_hz", [rate for rate in RATES_HZ if rate > TO_HZ])
def test_frequencies_above_the_new_range_are_removed_and_others_kept(from_hz: int) -> None:
    """Of 6 zero crossings, 8.6 kHz keeps -12 dB as a tone at 7.4 kHz, and 7.2 kHz loses 2.4 dB."""
    above = [hz for hz in (8_100, 8_600, 9_500, 11_900, 15_900, 20_000) if hz < from_hz / 2]
    assert max(gain_db(hz, from_hz) for hz in above) < -75
    assert max(abs(gain_db(hz, from_hz)) for hz in (50, 1_000, 4_000, 7_200)) < 0.02
    assert gain_db(7_400, from_hz) > -0.25


@pytest.mark.parametrize("from_hz", [rate for rate in RATES_HZ if rate < TO_HZ])
def test_a_lower_rate_gets_no_images(from_hz: int) -> None:
    hz = 0.45 * from_hz
    assert abs(gain_db(hz, from_hz)) < 0.05
    tone = np.sin(2 * np.pi * hz * np.arange(from_hz) / from_hz).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(whole(tone, from_hz) * np.blackman(TO_HZ))) ** 2
    image = spectrum[from_hz // 2 :].sum() / spectrum.sum()
    assert 10 * np.log10(image) < -75


def test_another_filter_changes_the_fingerprint_of_audio_features() -> None:
    """Only backbones that read audio resample."""
    tone = BackboneEntry("tone", "tone").provenance(Tone())
    assert tone["resampling"] == {"window": "kaiser", "zeros": 48, "rolloff": 0.96, "beta": 8.0}
    other = tone | {"resampling": tone["resampling"] | {"zeros": 6}}
    assert fingerprint(tone) != fingerprint(other)
    assert "resampling" not in BackboneEntry("words", "text_encoder").settings()
