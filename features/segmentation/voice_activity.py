"""Voice activity detection by Silero VAD, whose weights travel in the package `silero-vad`.

Only its weight file is read, a safetensors file: the package itself is not imported, which would
set the number of torch's threads. Shapes: T windows of 32 ms.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from features.errors import CheckpointError, MachineError
from features.files.reading import file_sha256
from features.networks.silero import CONTEXT, SAMPLE_RATE_HZ, WINDOW, SileroVAD, State, build
from features.weights.tensors import read_tensors

WINDOW_SECONDS = WINDOW / SAMPLE_RATE_HZ
MODULE, WEIGHTS = "silero_vad", Path("data", "silero_vad_16k.safetensors")
RELEASE = "silero-vad==6.2.3"
SHA256 = "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1"
# Speech ends at a lower probability than it begins at, as in the public code: fewer interruptions.
HYSTERESIS = 0.15
LEAST = 0.01  # lowest probability at which it ends


def load() -> SileroVAD:
    """The network with the weights of the installed package.

    Raises:
        MachineError: If the package is not installed.
        CheckpointError: If it holds other weights than those that were checked.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise MachineError(
            "voice activity needs the package silero-vad, which is not installed: "
            "pip install -e '.[vad]', or name annotations by --rttm, --textgrid or --segments"
        )
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS
    found = file_sha256(path) if path.is_file() else "no such file"
    if found != SHA256:
        raise CheckpointError(
            f"{path} has SHA-256 {found}; expected {SHA256}: pip install {RELEASE}"
        )
    return build(read_tensors(path), str(path))


class SpeechDetector:
    """Probabilities of speech in a recording, block after block."""

    def __init__(self, network: SileroVAD) -> None:
        self._network = network
        self._before = torch.zeros(CONTEXT)
        self._state: State | None = None

    def probabilities(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[T]` of the next windows `[T, 512]` at 16 kHz."""
        samples = torch.cat([self._before, torch.from_numpy(windows).flatten()])
        with torch.inference_mode():
            found, self._state = self._network(samples, self._state)
        self._before = samples[-CONTEXT:]
        made: NDArray[np.float32] = found.numpy()
        return made


def speech_spans(
    probabilities: NDArray[np.float32], threshold: float
) -> Iterator[tuple[float, float]]:
    """Spans of speech in seconds, in order, from the probabilities `[T]` of all windows.

    >>> list(speech_spans(np.array([0, 0.6, 0.4, 0.9, 0.2], np.float32), 0.5))
    [(0.032, 0.128)]
    """
    ends = max(threshold - HYSTERESIS, LEAST)
    # 1: speech, 0: none, -1: as in the window before.
    said = np.where(probabilities >= threshold, 1, np.where(probabilities < ends, 0, -1))
    known = np.maximum.accumulate(np.where(said >= 0, np.arange(len(said)), -1))
    speech = np.where(known >= 0, said[known], 0)
    edges = np.flatnonzero(np.diff(speech, prepend=0, append=0)) * WINDOW_SECONDS
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
