"""A tiny backbone without weights, for tests and first trials.

The log-magnitude of each 20 ms frame at a few fixed frequencies, logarithmically spaced from 100 Hz
to 4 kHz. It runs some thousand times faster than real time on one core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from features.audio.spectrogram import equal_parts
from features.backbone.base import BackboneFactory, Inputs, Reads
from features.backbones._audio import HOP, SAMPLE_RATE, padded, waveform
from features.corpus.utterance import Utterance
from features.ranges import Width
from features.stream import Stream, StreamSpec


class Tone:
    """Log-magnitudes at fixed frequencies.

    Args:
        dim: Number of frequencies D.
    """

    reads: Reads = "audio"

    def __init__(self, *, dim: Width = 8) -> None:
        self.spec = StreamSpec(dim=dim, hop_seconds=HOP / SAMPLE_RATE)
        self.trainable = False
        # In double precision, so that the stored values do not depend on the kernels that libraries
        # choose for a processor: tests compare bytes.
        low, high = math.log10(100.0), math.log10(4000.0)  # of Hz
        frequencies = torch.logspace(low, high, dim, dtype=torch.float64)
        phase = 2 * math.pi * frequencies * torch.arange(HOP)[:, None] / SAMPLE_RATE
        self.cosine, self.sine = phase.cos() / HOP, phase.sin() / HOP  # [HOP, D]

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Waveforms `[B, L]` and their lengths."""
        samples, lengths = padded([waveform(u, min_samples=HOP) for u in utterances])
        return Inputs.of(utterances, samples=samples, lengths=lengths)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]` with T = floor(L / 320)."""
        samples, lengths = inputs.tensors["samples"], inputs.tensors["lengths"]
        frames = samples.unfold(1, HOP, HOP)  # [B, T, HOP]
        cosine, sine = self.cosine.to(samples.device), self.sine.to(samples.device)
        blocks = (frames[:, first:last].double() for first, last in equal_parts(frames.shape[1]))
        power = torch.cat([(f @ cosine).square() + (f @ sine).square() for f in blocks], 1)
        return Stream.masked((power + 1e-8).log().float(), lengths // HOP)

    def provenance(self) -> dict[str, Any]:
        """No weights; the frequencies follow from `dim`."""
        return {"frequencies_hz": "logspace(100, 4000)"}


build: BackboneFactory = Tone
