"""From one sample rate to another: torchaudio's windowed sinc, its kernel kept per pair of rates.

torchaudio is imported on first use, so that `prepare` needs no torch.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATES_HZ = (4_000, 768_000)  # others are a damaged header's
# Coefficients of the largest kernel, 64 MiB: that from 44.1 to 16 kHz has 75,000.
LARGEST_KERNEL = 2**24


def resamplable(from_hz: int, to_hz: int) -> bool:
    """Whether a rate is one that audio has, and shares enough with the other for a small kernel.

    The kernel has one filter for each sample of the new rate in a common period, each at least
    that period long: 16,001 Hz to 16,000 Hz would take 256 million coefficients.
    """
    common = math.gcd(from_hz, to_hz)
    kernel = from_hz // common * (to_hz // common)
    return RATES_HZ[0] <= from_hz <= RATES_HZ[1] and kernel <= LARGEST_KERNEL


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Samples `[L]` as `[ceil(L * to_hz / from_hz)]`; what the lower rate cannot hold is gone."""
    import torch

    with torch.inference_mode():
        resampled: NDArray[np.float32] = _resampler(from_hz, to_hz)(
            torch.from_numpy(samples)
        ).numpy()
    return resampled


@functools.lru_cache(maxsize=16)
def _resampler(from_hz: int, to_hz: int) -> Any:
    from features.torchaudio_cpu import torchaudio

    return torchaudio.transforms.Resample(from_hz, to_hz)
