"""Log-mel spectrogram: 64 bands, one frame each 10 ms, for the spectral slot.

Power spectrum of a 25 ms periodic Hann window, centred with reflection, HTK mel scale without area
normalisation, natural logarithm. No weights; a few hundred times faster than real time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.audio.spectrogram import spectra
from features.audio.torchaudio_cpu import functional
from features.backbone.base import BackboneFactory, Inputs, Reads
from features.backbones._audio import SAMPLE_RATE, waveform
from features.corpus.utterance import Utterance
from features.errors import ParamsError
from features.ranges import Interval
from features.stream import Stream, StreamSpec

WINDOW = 400  # samples
NARROWEST = 100  # Hz from f_min to f_max: much closer band edges are equal in float32
FLOOR = 1e-10  # power below which the logarithm is cut off


class LogMel:
    """Log-mel frames.

    Args:
        n_mels: Number of bands D.
        hop: Samples from one frame to the next, at 16 kHz.
        n_fft: Length of the Fourier transform.
        f_min: Lowest frequency in Hz.
        f_max: Highest frequency in Hz.
    """

    reads: Reads = "audio"

    def __init__(
        self,
        *,
        n_mels: Annotated[int, Interval(ge=1, le=1024)] = 64,
        hop: Annotated[int, Interval(ge=1, le=SAMPLE_RATE)] = 160,
        n_fft: Annotated[int, Interval(ge=WINDOW, le=65_536)] = 512,
        f_min: Annotated[float, Interval(ge=0, lt=SAMPLE_RATE // 2)] = 0.0,
        f_max: Annotated[float, Interval(ge=NARROWEST, le=SAMPLE_RATE // 2)] = 8000.0,
    ) -> None:
        if f_max - f_min < NARROWEST:
            raise ParamsError(
                f"logmel: f_min {f_min}, f_max {f_max}; expected {NARROWEST} Hz between them"
            )
        self.spec = StreamSpec(dim=n_mels, hop_seconds=hop / SAMPLE_RATE)
        self.trainable = False
        self.hop, self.n_fft = hop, n_fft
        self.window = torch.hann_window(WINDOW)
        self.bank = functional.melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Frames `[B, T, D]`, computed clip by clip, since the reflection must not see padding."""
        frames = [self._frames(waveform(u, min_samples=self.n_fft)) for u in utterances]
        stream = Stream.pad(frames)
        return Inputs.of(utterances, values=stream.values, mask=stream.mask)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]` with T = 1 + floor(L / hop)."""
        return Stream(inputs.tensors["values"], inputs.tensors["mask"])

    def provenance(self) -> dict[str, Any]:
        """Constants of the spectrogram."""
        return {"window_samples": WINDOW, "power_floor": FLOOR}

    def _frames(self, samples: NDArray[np.float32]) -> Tensor:
        clip = torch.from_numpy(samples)
        return torch.cat(
            [
                (block.abs().square().T @ self.bank).clamp(min=FLOOR).log()
                for block in spectra(clip, self.window, n_fft=self.n_fft, hop=self.hop)
            ]
        )


build: BackboneFactory = LogMel
