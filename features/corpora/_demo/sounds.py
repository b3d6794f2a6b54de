"""Non-verbal sounds of the demo corpus: laugh, sob, sigh and gasp, from harmonics and noise.

A source (harmonics that fall by 6 dB an octave, or white noise) goes through resonators at the
formants of a vowel, the source-filter model of speech (Fant 1960, "Acoustic theory of speech
production"). All times are in seconds.

Shapes: T samples at `SAMPLE_RATE_HZ`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Floats = NDArray[np.float64]
SAMPLE_RATE_HZ = 16_000
_TOP_HZ = 7_000.0  # harmonics above this would alias
_OPEN = (750.0, 1250.0, 2600.0, 3600.0)  # formants of an open vowel, as in "ha", in Hz
_SCHWA = (500.0, 1500.0, 2500.0, 3500.0)
_BANDWIDTHS = (90.0, 110.0, 160.0, 250.0)


class Throat:
    """Source-filter synthesiser of one speaker.

    Attributes:
        pitch_hz: Mean fundamental frequency of the speaker.
        formant: Factor on all formants.
        rng: Random generator of noise.
    """

    def __init__(self, pitch_hz: float, formant: float, rng: np.random.Generator) -> None:
        self.pitch_hz, self.formant, self.rng = pitch_hz, formant, rng

    def voiced(self, pitch: Floats, vowel: tuple[float, ...]) -> Floats:
        """`[T]` of voice with the contour `pitch` `[T]`, a factor on the speaker's own."""
        hz = self.pitch_hz * pitch
        phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
        source = np.zeros_like(hz)
        for k in range(1, int(_TOP_HZ / hz.min()) + 1):
            source += np.where(k * hz < _TOP_HZ, np.cos(k * phase) / k, 0.0)
        return self._through(source, vowel)

    def breath(self, seconds: float, vowel: tuple[float, ...]) -> Floats:
        """`[T]` of breath through the mouth."""
        return self._through(self.rng.standard_normal(_samples(seconds)), vowel)

    def _through(self, source: Floats, vowel: tuple[float, ...]) -> Floats:
        for hz, width in zip(vowel, _BANDWIDTHS, strict=True):
            # Two-pole resonator with gain 1 at 0 Hz.
            radius = np.exp(-np.pi * width / SAMPLE_RATE_HZ)
            angle = 2 * np.pi * hz * self.formant / SAMPLE_RATE_HZ
            poles = [1.0, -2 * radius * np.cos(angle), radius**2]
            source = lfilter([sum(poles)], poles, source)
        return np.asarray(source / (source.std() + 1e-12))


def laugh(throat: Throat, *, alone: bool) -> Floats:
    """Bursts of "ha", each lower and softer than the one before: `[T]`."""
    parts = []
    for i in range(7 if alone else 4):
        pitch = np.linspace(2.1, 1.8, _samples(0.1)) * 0.95**i
        voice = throat.voiced(pitch, _OPEN) * _hump(len(pitch))
        air = throat.breath(0.05, _OPEN) * 0.25
        parts += [air * 0.9**i, voice * 0.9**i]
    return np.concatenate(parts)


def sob(throat: Throat, *, alone: bool) -> Floats:
    """Jerks of breath drawn in, each followed by a falling, trembling whimper: `[T]`."""
    parts = []
    for _ in range(3 if alone else 2):
        times = np.arange(_samples(0.24)) / SAMPLE_RATE_HZ
        tremor = 2 ** (np.sin(2 * np.pi * 9.0 * times) / 12)
        voice = throat.voiced(np.linspace(1.7, 1.0, len(times)) * tremor, _SCHWA)
        parts += [throat.breath(0.09, _SCHWA) * 0.5, voice * _hump(len(times))]
    return np.concatenate(parts)


def sigh(throat: Throat, *, alone: bool) -> Floats:
    """One long breath out that darkens and dies away: `[T]`."""
    seconds = 1.0 if alone else 0.6
    bright, dark = throat.breath(seconds, _OPEN), throat.breath(seconds, _SCHWA)
    fade = np.linspace(0.0, 1.0, len(bright))
    loudness = np.minimum(fade / 0.12, 1.0) * (1.0 - fade) ** 1.5
    return np.asarray((bright * (1 - fade) + dark * fade) * loudness)


def gasp(throat: Throat, *, alone: bool) -> Floats:
    """Sharp breath drawn in, swelling to a sudden stop; `alone`, it trembles out again: `[T]`."""
    air = throat.breath(0.32, _OPEN)
    # Differences of neighbouring samples raise the spectrum by 6 dB an octave: inhaling is sharp.
    sharp = np.diff(air, prepend=0.0)
    drawn = sharp / (sharp.std() + 1e-12) * np.linspace(0.0, 1.0, len(air)) ** 2
    if not alone:
        return np.asarray(drawn)
    out = throat.breath(0.4, _SCHWA) * np.linspace(0.7, 0.1, _samples(0.4))
    times = np.arange(len(out)) / SAMPLE_RATE_HZ
    pause = np.zeros(_samples(0.12))
    return np.concatenate([drawn, pause, out * (1 + np.sin(2 * np.pi * 8.0 * times)) / 2])


SOUNDS: dict[str, Callable[..., Floats]] = {
    "laugh": laugh,
    "sob": sob,
    "sigh": sigh,
    "gasp": gasp,
}


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _hump(length: int) -> Floats:
    return np.sqrt(np.hanning(length))
