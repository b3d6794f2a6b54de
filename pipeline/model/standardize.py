"""Standardisation and whitening of frames by the statistics of the training frames.

Standardised dimensions have zero mean and unit variance; whitened ones are uncorrelated as well.
`pipeline.model.inputs` puts a layer before a fusion, `pipeline.training.predict.fit_inputs` gives
it its statistics. They are buffers, so that a saved model brings them along.

Source of the merge: Chan, Golub & LeVeque 1983, "Algorithms for Computing the Sample Variance",
equation 2.1. Sums of squares would lose all digits of a dimension whose mean is far from zero.
Of the whitening: Kessy, Lewin & Strimmer 2018 (arXiv 1512.00809), ZCA-cor, which of all whitenings
stays closest to the standardised dimensions; of its shrinkage: Schaefer & Strimmer 2005 (doi
10.2202/1544-6115.1175), with a weight that is given and not estimated.

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
    """Count, mean and deviations of some frames, in float64.

    Attributes:
        count: Number of frames.
        mean: Their mean, `[D]`.
        squares: Sums of their squared deviations from it, `[D]`, or of the products of deviations
            in two dimensions, `[D, D]`.
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, frames: Tensor, *, products: bool = False) -> Self:
        """Moments of frames `[T, D]`; the same to the bit on whatever device they are."""
        # NumPy adds rows one after the other; torch divides sums among its threads.
        values = frames.detach().cpu().double().numpy()
        mean = values.mean(0) if len(values) else np.zeros(values.shape[1])
        apart = values - mean
        return cls(len(values), mean, apart.T @ apart if products else np.square(apart).sum(0))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not (self.count and other.count):
            return self if self.count else other
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        products = np.square(apart) if self.squares.ndim == 1 else np.outer(apart, apart)
        between = products * (self.count * other.count / count)
        return Moments(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation, `[D]`; 1 for a dimension that is constant up to rounding."""
        std, varies = self._spread
        std[~varies] = 1.0
        return std

    @property
    def correlation(self) -> NDArray[np.float64]:
        """Correlations, `[D, D]`, of moments with products; 0 with a dimension that is constant."""
        std, varies = self._spread
        scale = np.divide(1, std, out=np.zeros_like(std), where=varies)
        scaled: NDArray[np.float64] = self.squares / self.count * np.outer(scale, scale)
        return scaled

    @property
    def _spread(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Standard deviation, and whether it is more than rounding."""
        squares = self.squares if self.squares.ndim == 1 else self.squares.diagonal()
        std: NDArray[np.float64] = np.sqrt(squares / self.count)
        least = np.maximum(ROUNDING * np.abs(self.mean), np.finfo(np.float32).tiny)
        return std, std > least


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

    @staticmethod
    def measure(frames: Tensor) -> Moments:
        """Moments of frames `[T, D]` that `fit` needs."""
        return Moments.of(frames)

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


class Whiten(Standardize):
    """R^(-1/2) (x - mean) / std, `[..., D]`, R the frames' correlations; without statistics, x.

    R is shrunk to (1 - s) R + s I: directions in which the frames hardly vary are mostly rounding
    and chance, and are amplified by no more than s^(-1/2).

    Args:
        width: Width D of a frame.
        shrinkage: Weight s of the identity; 1 only standardises.
    """

    matrix: Tensor

    def __init__(self, width: int, shrinkage: float) -> None:
        super().__init__(width)
        self.shrinkage = shrinkage
        self.register_buffer("matrix", torch.eye(width))

    @staticmethod
    def measure(frames: Tensor) -> Moments:
        """Moments of frames `[T, D]`, with products."""
        return Moments.of(frames, products=True)

    def fit(self, moments: Moments) -> None:
        """Take the mean, standard deviation and correlations of some frames."""
        super().fit(moments)
        if moments.count:
            shrunk = (1 - self.shrinkage) * moments.correlation
            np.fill_diagonal(shrunk, shrunk.diagonal() + self.shrinkage)
            values, vectors = np.linalg.eigh(shrunk)
            self.matrix.copy_(torch.from_numpy(vectors / np.sqrt(values) @ vectors.T))

    def forward(self, values: Tensor) -> Tensor:
        """Whitened frames."""
        standardized: Tensor = super().forward(values)
        return standardized @ self.matrix
