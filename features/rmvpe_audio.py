"""What surrounds RMVPE: samples to log-mel on one side, salience to Hz on the other.

Pure functions. Constants are those of the public code (RVC and yxlllc/RMVPE): magnitude of a
1024-point STFT each 10 ms, 128 bands on the HTK scale with Slaney's area normalisation, natural
logarithm; 360 bins of 20 cents above 31.7 Hz.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.networks.rmvpe import N_BINS, N_MELS
from features.pitch import Floats
from features.spectrogram import spectra
from features.torchaudio_cpu import functional

SAMPLE_RATE_HZ = 16_000
HOP = 160  # samples: 10 ms
N_FFT = 1024  # samples, and the window's length
F_MIN, F_MAX = 30.0, 8000.0  # Hz, of the mel bands
FLOOR = 1e-5  # magnitude below which the logarithm is cut off
CENTS_HZ = 10.0  # what cents count from
CENTS_A_BIN = 20.0
FIRST_CENTS = 1997.3794084376191  # 31.7 Hz, centre of bin 0
REACH = 4  # bins on either side of the highest one that its frequency is the mean of
CENTS = FIRST_CENTS + CENTS_A_BIN * np.arange(N_BINS)


def log_mel(samples: NDArray[np.float32]) -> Tensor:
    """Log-mel spectrogram `[128, F]` float32 of samples `[L]` in [-1, 1]; F = 1 + floor(L / 160).

    The first and last frame look beyond the clip by reflection, so L must exceed 512.
    """
    window, bank = _window_and_bank()
    blocks = spectra(torch.from_numpy(samples), window, n_fft=N_FFT, hop=HOP)
    return torch.cat([(bank @ block.abs()).clamp(min=FLOOR).log() for block in blocks], 1)


@functools.cache
def _window_and_bank() -> tuple[Tensor, Tensor]:
    bank: Tensor = functional.melscale_fbanks(
        N_FFT // 2 + 1, F_MIN, F_MAX, N_MELS, SAMPLE_RATE_HZ, norm="slaney", mel_scale="htk"
    )
    return torch.hann_window(N_FFT), bank.T.contiguous()


def cents_to_hz(cents: Floats) -> Floats:
    """Frequency of cents above 10 Hz."""
    return np.asarray(CENTS_HZ * np.exp2(np.asarray(cents, np.float64) / 1200.0))


def salience_to_cents(salience: NDArray[np.float32]) -> Floats:
    """Cents `[F]` of the highest bin of `[F, 360]` and its neighbours, weighted by their salience.

    Bins beyond either end weigh nothing. A frame of zeros gives 0.
    """
    near = salience.argmax(1)[:, None] + np.arange(-REACH, REACH + 1)
    exists = (near >= 0) & (near < N_BINS)
    near = near.clip(0, N_BINS - 1)
    weights = np.take_along_axis(salience, near, 1).astype(np.float64) * exists
    total = weights.sum(1)
    return np.asarray((weights * CENTS[near]).sum(1) / np.where(total > 0, total, 1.0))


def salience_to_hz(salience: NDArray[np.float32], *, threshold: float) -> Floats:
    """Frequency `[F]` of each frame; 0 Hz (unvoiced) where no bin is above `threshold`.

    The threshold is compared in float32, so that a salience written as 0.05 is not above 0.05.
    """
    voiced = salience.max(1) > np.float32(threshold)
    return np.where(voiced, cents_to_hz(salience_to_cents(salience)), 0.0)
