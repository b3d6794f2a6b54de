"""CED's front end: spectrograms in decibels, 64 mel bands, one frame each 10 ms.

Power spectrum of a 32 ms periodic Hann window, centred with reflection, HTK mel scale from 0 to
8000 Hz without area normalisation, ten times the decimal logarithm. What lies more than 120 dB
below the maximum of the clip is lifted to that floor; the public code takes the maximum of a whole
batch, so that there a clip depends on its batch-mates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from features.torchaudio_cpu import functional

SAMPLE_RATE = 16_000  # Hz
WINDOW = 512  # samples, of the window and of the Fourier transform
HOP = 160  # samples from one frame to the next: 10 ms
MELS = 64
F_MAX = 8000.0  # Hz
FLOOR = 1e-10  # power below which the logarithm is cut off
TOP_DB = 120.0  # dynamic range of a clip


def frame_count(samples: int) -> int:
    """Frames of a clip: one in the middle of each hop, both ends included."""
    return 1 + samples // HOP


@dataclass(frozen=True)
class DecibelMel:
    """The front end; a function that holds its two constants.

    Attributes:
        window: `[512]`.
        bank: Filters `[257, 64]`.
    """

    window: Tensor = field(default_factory=lambda: torch.hann_window(WINDOW))
    bank: Tensor = field(
        default_factory=lambda: functional.melscale_fbanks(
            WINDOW // 2 + 1, 0.0, F_MAX, MELS, SAMPLE_RATE
        )
    )

    def __call__(self, samples: Tensor) -> Tensor:
        """Decibels `[64, T]` of one whole clip `[L]`, with T = 1 + floor(L / 160)."""
        spectrum = torch.stft(
            samples,
            WINDOW,
            HOP,
            WINDOW,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        # A complex magnitude takes care not to overflow, which its square need not: twice the time
        # of the transform.
        power = self.bank.T @ (spectrum.real.square() + spectrum.imag.square())
        decibels: Tensor = 10.0 * power.clamp(min=FLOOR).log10()
        return decibels.clamp(min=float(decibels.max()) - TOP_DB)
