"""What is heard in a recording, in windows of 32 ms: its level, and whether it is speech.

A recording is decoded and resampled once, block by block: memory does not grow with its length but
for two numbers a window, 1.8 MB for two hours. Shapes: T windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.audio.read import SAMPLE_RATE_HZ, audio_blocks
from features.segmentation.voice_activity import WINDOW_SECONDS, SpeechDetector

WINDOW = round(WINDOW_SECONDS * SAMPLE_RATE_HZ)
QUIET = 7  # windows of a pause: 224 ms, longer than the closure of a consonant
EQUAL = 1e-9  # difference of mean squares, -90 dB, below which pauses are equally quiet
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """Levels and speech of a recording.

    Attributes:
        levels: Mean square of the samples in each window `[T]`.
        speech: Probability of speech in each window `[T]`; empty where it was not asked for.
    """

    levels: Floats
    speech: Floats

    def quietest(self, start: float, stop: float) -> float:
        """Middle, in seconds, of the quietest pause between two times; of equal ones the first."""
        half = QUIET // 2
        first = round(start / WINDOW_SECONDS)
        last = max(first + 1, round(stop / WINDOW_SECONDS))
        padded = np.pad(self.levels, half, mode="edge").astype(np.float64)
        nearby = padded[first : last + 2 * half]
        means = np.convolve(nearby, np.full(QUIET, 1 / QUIET), mode="valid")
        lowest = np.flatnonzero(means <= means.min() + EQUAL)
        length = int(np.argmin(np.append(np.diff(lowest) == 1, False))) + 1  # of the first run
        return float((first + lowest[0] + length / 2) * WINDOW_SECONDS)


def hear(path: Path, detector: SpeechDetector | None, tick: Callable[[float], object]) -> Heard:
    """Hear a recording from its beginning to its end.

    Args:
        path: The recording.
        detector: Detector of speech, new for each recording; None: only levels are asked for.
        tick: Called with the seconds of each block that has been heard.

    Raises:
        ManifestError: If the file cannot be read.
        UtteranceError: If it cannot be decoded.
    """
    levels, speech = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for windows in _windows(audio_blocks(path)):
        levels.append(np.square(windows).mean(1))
        if detector is not None:
            speech.append(detector.probabilities(windows))
        tick(len(windows) * WINDOW_SECONDS)
    return Heard(np.concatenate(levels), np.concatenate(speech))


def _windows(blocks: Iterable[Floats]) -> Iterator[Floats]:
    """Regroup blocks as `[T, WINDOW]`; the last window ends in zeros."""
    rest = np.empty(0, np.float32)
    for block in blocks:
        held = np.concatenate([rest, block])
        whole = len(held) // WINDOW * WINDOW
        if whole:
            yield held[:whole].reshape(-1, WINDOW)
        rest = held[whole:]
    if len(rest):
        yield np.pad(rest, (0, WINDOW - len(rest)))[None]
