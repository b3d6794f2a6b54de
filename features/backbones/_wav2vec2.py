"""The convolutions of wav2vec 2.0's family, told where each clip of a batch ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn


class ToldLengths(nn.Module):
    """Lengths are state of the module, since the network above it cannot hand them down.

    One network therefore computes one batch at a time.
    """

    lengths: Tensor | None = None

    @contextlib.contextmanager
    def told(self, lengths: Tensor) -> Iterator[None]:
        """Within this context, `lengths[i]` of what clip i's row holds exists, `[B]`; then padding.

        Counted is what the module takes: samples, or frames.
        """
        self.lengths = lengths
        try:
            yield
        finally:
            self.lengths = None


class MaskedGroupNorm(ToldLengths, nn.GroupNorm):
    """A group norm that can be told how many frames of each clip exist.

    Without lengths it is `nn.GroupNorm` itself, so that what is not padded equals transformers bit
    for bit.
    """

    @classmethod
    def like(cls, norm: nn.GroupNorm) -> Self:
        """The same norm, with the same parameters."""
        masked = cls(norm.num_groups, norm.num_channels, eps=norm.eps, affine=norm.affine)
        masked.weight, masked.bias = norm.weight, norm.bias
        return masked

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `[B, C, T]`; frames of padding come out as some finite number."""
        if self.lengths is None:
            return super().forward(input)
        batch, channels, time = input.shape
        grouped = input.float().view(batch, self.num_groups, channels // self.num_groups, time)
        frames = torch.arange(time, device=input.device)
        mask = (frames < self.lengths[:, None])[:, None, None]  # [B, 1, 1, T]
        count = (self.lengths * grouped.shape[2])[:, None, None, None]
        mean = (grouped * mask).sum((2, 3), keepdim=True) / count
        centred = grouped - mean
        variance = (centred * mask).square().sum((2, 3), keepdim=True) / count
        normed: Tensor = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        return normed * self.weight[:, None] + self.bias[:, None] if self.affine else normed


class FrontConvolutions(ToldLengths):
    """What stands in the place of a network's `feature_extractor`, with its layers and their names.

    Without lengths its numbers are those of transformers' bit for bit.

    Args:
        conv_layers: Of transformers' feature encoder; a group norm of the first one is replaced.
    """

    def __init__(self, conv_layers: nn.ModuleList) -> None:
        super().__init__()
        self.conv_layers = conv_layers
        first: Any = conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = MaskedGroupNorm.like(first.layer_norm)

    def forward(self, samples: Tensor) -> Tensor:
        """`[B, C, T]` of waveforms `[B, L]`; frames of padding come out as some finite number."""
        norm = getattr(self.conv_layers[0], "layer_norm", None)
        if self.lengths is None or not isinstance(norm, MaskedGroupNorm):
            return self._convolve(samples)
        with norm.told(self.frames(self.lengths, layers=1)):
            return self._convolve(samples)

    def frames(self, samples: Tensor, *, layers: int | None = None) -> Tensor:
        """How many frames the first layers, or all, make of so many samples `[B]`."""
        for layer in self.conv_layers[:layers]:
            convolution: Any = layer.conv
            (kernel,), (stride,) = convolution.kernel_size, convolution.stride
            samples = (samples - kernel) // stride + 1
        return samples

    def _convolve(self, samples: Tensor) -> Tensor:
        values = samples[:, None]
        for layer in self.conv_layers:
            values = layer(values)
        return values
