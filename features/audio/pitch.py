"""Fundamental frequency as bins on a mel scale, and as the 20 ms track of the MDAT paper.

Constants and order of steps follow the public code of arXiv 2506.02088 and specs.md §4.1:
mel = 1127 ln(1 + f / 700), 50-1100 Hz, bins 1..255, and bin 0 for unvoiced frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def hz_to_mel(hz: Floats | float) -> Floats:
    """Mel of a frequency in Hz.

    >>> round(float(hz_to_mel(1100.0)), 3)
    1064.408
    """
    return np.asarray(1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0))


def mel_to_hz(mel: Floats | float) -> Floats:
    """Inverse of `hz_to_mel`."""
    return np.asarray(700.0 * np.expm1(np.asarray(mel, np.float64) / 1127.0))


def hz_to_bin(
    hz: Floats | float, *, bins: int = 256, f_min: float = 50.0, f_max: float = 1100.0
) -> NDArray[np.int64]:
    """Bin 1..bins-1 of frequencies in Hz, evenly spaced in mel; 0 Hz falls into bin 1.

    >>> hz_to_bin(np.array([0.0, 80.0, 220.0, 1100.0])).tolist()
    [1, 12, 60, 255]
    """
    low, high = hz_to_mel(f_min), hz_to_mel(f_max)
    scaled = (hz_to_mel(hz) - low) * (bins - 2) / (high - low) + 1
    return np.rint(np.clip(scaled, 1, bins - 1)).astype(np.int64)


def bin_to_hz(
    index: NDArray[np.int64], *, bins: int = 256, f_min: float = 50.0, f_max: float = 1100.0
) -> Floats:
    """Centre in Hz of bins 1..bins-1; inverse of `hz_to_bin` up to rounding."""
    low, high = hz_to_mel(f_min), hz_to_mel(f_max)
    return mel_to_hz(low + (np.asarray(index) - 1) * (high - low) / (bins - 2))


def resize_nearest(track: Floats, frames: int) -> Floats:
    """Resize `[T] -> [frames]` to nearest neighbours: source index floor(i * T / frames)."""
    return track[np.arange(frames) * len(track) // frames]


def interpolate_unvoiced(hz: Floats) -> Floats:
    """Fill frames of 0 Hz linearly from their voiced neighbours, holding both ends.

    A track without any voiced frame is returned as it is: silence is a valid result.

    >>> interpolate_unvoiced(np.array([0.0, 100.0, 0.0, 200.0])).tolist()
    [100.0, 100.0, 150.0, 200.0]
    """
    voiced = np.flatnonzero(hz > 0)
    if not len(voiced):
        return hz
    return np.interp(np.arange(len(hz)), voiced, hz[voiced])
