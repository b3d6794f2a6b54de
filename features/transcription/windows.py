"""Cuts recordings into windows of at most 30 s, where they are quiet, for a speech recogniser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.audio.read import SAMPLE_RATE_HZ, audio_blocks
from features.backbones.whisper import WINDOW
from features.corpus.utterance import Utterance
from features.errors import UtteranceError

SEARCHED = 5 * SAMPLE_RATE_HZ  # samples at the end of a full window in which the cut may lie
FRAME = SAMPLE_RATE_HZ // 50  # samples of a frame: 20 ms
QUIET = 10  # frames over which quietness is measured


def windows(utterance: Utterance) -> Iterator[NDArray[np.float32]]:
    """Samples at 16 kHz of an utterance's windows, in order; at most 30 s each.

    A long recording is decoded a window ahead, and not held in memory.

    Raises:
        UtteranceError: If there is no audio, or it cannot be read.
        ManifestError: If the file is missing, or is another one than in the manifest.
    """
    if utterance.audio is None:
        raise UtteranceError(utterance.id, "has no audio")
    blocks = audio_blocks(
        Path(utterance.audio),
        id=utterance.id,
        start=utterance.start,
        stop=utterance.stop,
        sha256=utterance.sha256,
    )
    rest = np.empty(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) > WINDOW:
            cut = quietest(rest[:WINDOW])
            yield rest[:cut]
            rest = rest[cut:]
    yield rest


def quietest(window: NDArray[np.float32]) -> int:
    """Sample in the middle of the quietest 0.2 s within the last 5 s of a full window."""
    frames = window[len(window) - SEARCHED :].reshape(-1, FRAME)
    energy = np.square(frames, dtype=np.float64).sum(1)
    loudness = np.convolve(energy, np.ones(QUIET), mode="valid")
    return len(window) - SEARCHED + FRAME * (int(loudness.argmin()) + QUIET // 2)
