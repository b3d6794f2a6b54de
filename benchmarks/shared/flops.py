"""Floating-point operations of a clip, and the speed of a matrix product on this machine.

A multiplication and an addition count as two. Counted are matrix products, convolutions and
attention; norms, activations and the front end are not, so a fraction of the peak is a lower bound.
"""

from __future__ import annotations

import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from features.backbone.base import Backbone
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance

SIZES = {"cpu": (2048,), "cuda": (4096, 8192)}  # of square matrices; small ones do not fill a GPU
REPEATS = 5


def flops_of(backbone: Backbone, utterance: Utterance, device: torch.device) -> int:
    """Operations of the network for one utterance alone: no padding, but Whisper's own 30 s.

    Args:
        backbone: Its network is on `device`; 0 if it has none.
        utterance: What to compute.
        device: Where.
    """
    inputs = backbone.prepare([utterance]).to(device)
    # The counter knows no fused attention of the CPU and no recurrent layer of cuDNN.
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=False),
        FlopCounterMode(display=False) as counter,
    ):
        backbone(inputs)
    return int(counter.get_total_flops())


def flops_of_all(backbone: Backbone, manifest: Manifest, device: torch.device) -> int:
    """The same, summed over a corpus; equal lengths are counted once."""
    found: dict[tuple[float | None, int], int] = {}
    total = 0
    for utterance in manifest:
        size = (utterance.seconds, len(utterance.text or ""))
        if size not in found:
            found[size] = flops_of(backbone, utterance, device)
        total += found[size]
    return total


class Matmul:
    """Square matrix products of what is taken for the machine's peak.

    Args:
        device: Where.
        dtype: As the network computes.
        sizes: Of the matrices; None: those that fill such a device.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] | None = None
    ) -> None:
        self.device = device
        self.matrices = [
            torch.randn(size, size, device=device).to(dtype) for size in sizes or SIZES[device.type]
        ]

    def seconds_per_flop(self) -> float:
        """Of the fastest product of a few, of all sizes."""
        return min(
            self._seconds(matrix) / (2 * len(matrix) ** 3)
            for matrix in self.matrices
            for _ in range(REPEATS)
        )

    def _seconds(self, matrix: torch.Tensor) -> float:
        self._wait()
        start = time.perf_counter()
        matrix @ matrix
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
