"""Reads and pads the audio of a batch for backbones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.audio.read import WHOLE, read_audio
from features.backbone.windows import Window
from features.corpus.utterance import Utterance
from features.errors import UtteranceError

SAMPLE_RATE = 16_000  # Hz, of all pretrained speech networks here
SLACK = 16  # samples by which resampling and a rounded duration may differ: 1 ms
HOP = 320  # samples from one frame to the next: 20 ms


def waveform(utterance: Utterance, *, min_samples: int = 1) -> NDArray[np.float32]:
    """Samples of an utterance, `[L]` float32 at 16 kHz, mono, in [-1, 1].

    Raises:
        UtteranceError: If it has no audio, or fewer than `min_samples` samples.
    """
    if utterance.audio is None:
        raise UtteranceError(utterance.id, "has no audio")
    part, source = WHOLE, utterance
    if isinstance(utterance, Window) and utterance.whole is not None:
        part, source = utterance.part, utterance.whole
    samples = read_audio(
        Path(utterance.audio),
        id=utterance.id,
        sample_rate_hz=SAMPLE_RATE,
        start=source.start,
        stop=source.stop,
        part=part,
        sha256=utterance.sha256,
    )
    if part[1] is not None and len(samples) < part[1] - part[0] - SLACK:
        at = (part[0] + len(samples)) / SAMPLE_RATE
        raise UtteranceError(utterance.id, f"ends at {at:.3f} s, earlier than the manifest says")
    if len(samples) < min_samples:
        raise UtteranceError(
            utterance.id, f"has {len(samples)} samples at 16 kHz; expected at least {min_samples}"
        )
    return samples


def padded(waveforms: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Waveforms `[B, L]` padded with zeros, and their lengths `[B]`."""
    tensors = [torch.from_numpy(samples) for samples in waveforms]
    lengths = torch.tensor([len(samples) for samples in waveforms])
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths
