"""Standardisation of frames: per dimension zero mean and unit variance over the training frames.

`pipeline.model.inputs` puts the layer before a fusion, `pipeline.training.predict.fit_inputs` gives
it its statistics. They are buffers, so that a saved model brings them along.

Source of the merge: Chan, Golub & LeVeque 1983, "Algorithms for Computing the Sample Variance",
equation 2.1. Sums of squares would lose all digits of a dimension whose mean is far from zero.

Shapes: B batch, T time, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROUNDING = 1e-6  # of float32, relative: a dimension that varies by less is taken as constant


@dataclass(frozen=True)
class Moments:
    """Count, mean and squared deviations of some frames, in float64.

    Attributes:
        count: Number of frames.
        mean: Their mean, `[D]`.
        squares: Sums of their squared deviations from it, `[D]`.
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, frames: Tensor) -> Self:
        """Moments of frames `[T, D]`; the same to the bit on whatever device they are."""
        # NumPy adds rows one after the other; torch divides sums among its threads.
        values = frames.detach().cpu().double().numpy()
        mean = values.mean(0) if len(values) else np.zeros(values.shape[1])
        return cls(len(values), mean, np.square(values - mean).sum(0))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not (self.count and other.count):
            return self if self.count else other
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = np.square(apart) * (self.count * other.count / count)
        return Moments(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation, `[D]`; 1 for a dimension that is constant up to rounding."""
        std = np.sqrt(self.squares / self.count)
        least = np.maximum(ROUNDING * np.abs(self.mean), np.finfo(np.float32).tiny)
        return np.where(std > least, std, 1.0)


class Standardize(nn.Module):
    """(x - mean) / std of each dimension, `[..., D]`; without statistics, x itself.

    A frame of nothing but zeros stays one: it stands for a missing slot, which becomes the average,
    as in modality dropout (`pipeline.runs.conditions`).

    Args:
        width: Width D of a frame.
    """

    mean: Tensor
    std: Tensor
    frames: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    @property
    def fitted(self) -> bool:
        """Whether it has statistics."""
        return bool(self.frames > 0)

    def fit(self, moments: Moments) -> None:
        """Take the mean and standard deviation of some frames."""
        self.frames.fill_(moments.count)
        if moments.count:
            self.mean.copy_(torch.from_numpy(moments.mean))
            self.std.copy_(torch.from_numpy(moments.std))

    def forward(self, values: Tensor) -> Tensor:
        """Standardised frames."""
        there = values.any(-1, keepdim=True)
        return torch.where(there, (values - self.mean) / self.std, 0)
