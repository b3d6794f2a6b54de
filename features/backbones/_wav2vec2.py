"""Front convolutions of wav2vec 2.0's family, with a group norm that padding does not reach.

In base models the first convolution is followed by a group norm, whose mean and variance are taken
over all frames of a clip. transformers takes them over the padding of a batch too, which changes
every state by as much as its own size, attention mask or not. Here they are taken over each clip's
own frames, so that it is normalised as it would be alone.

Shapes: B batch, L samples, T frames, C channels, G groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

# Numbers that a group norm works on at once, 64 MiB: it holds five copies of them, which for the
# 3 GB of a batch of 480 s would be 16 GB.
BLOCK = 1 << 24


class WithLengths(nn.Module):
    """A module that is given the lengths of the clips of a batch beside its input.

    They are state of the module, since transformers' network around it cannot pass them on. So one
    network computes one batch at a time.
    """

    lengths: Tensor | None = None

    @contextlib.contextmanager
    def given(self, lengths: Tensor) -> Iterator[None]:
        """Within this context, only the first `lengths[i]` values of row i exist; `[B]`."""
        self.lengths = lengths
        try:
            yield
        finally:
            self.lengths = None


class MaskedGroupNorm(WithLengths, nn.GroupNorm):
    """A group norm over the frames that exist; without lengths, `nn.GroupNorm` itself."""

    @classmethod
    def like(cls, norm: nn.GroupNorm) -> Self:
        """The same norm, sharing its parameters."""
        masked = cls(norm.num_groups, norm.num_channels, eps=norm.eps, affine=norm.affine)
        masked.weight, masked.bias = norm.weight, norm.bias
        return masked

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `[B, C, T]`; frames of padding get some finite value."""
        if self.lengths is None:
            return super().forward(input)
        learned = (tensor.requires_grad for tensor in (input, *self.parameters()))
        if torch.is_grad_enabled() and any(learned):  # gradients need what is computed between
            return self._normed(input, 0, self.num_channels)
        normed = input.new_empty(input.shape, dtype=torch.float32)
        for first, last in self._blocks(input):
            normed[:, first:last] = self._normed(input[:, first:last], first, last)
        return normed

    def _blocks(self, input: Tensor) -> Iterator[tuple[int, int]]:
        """First and last channel (exclusive) of blocks of whole groups, of about `BLOCK` numbers.

        A block has two groups at least, if there are two: torch adds up a single sum by several
        threads, and so in another order.
        """
        width = self.num_channels // self.num_groups
        groups = max(2, BLOCK // max(1, width * len(input) * input.shape[2]))
        count = max(1, self.num_groups // groups)
        edges = [self.num_groups * number // count * width for number in range(count + 1)]
        return pairwise(edges)

    def _normed(self, values: Tensor, first: int, last: int) -> Tensor:
        """Normalise `[B, c, T]`, the channels `first` to `last` (exclusive)."""
        assert self.lengths is not None
        batch, channels, time = values.shape
        width = self.num_channels // self.num_groups
        grouped = values.float().reshape(batch, channels // width, width, time)
        frames = torch.arange(time, device=values.device)
        mask = (frames < self.lengths[:, None])[:, None, None]  # [B, 1, 1, T]
        # Numbers of a group: T existing frames of C / G channels.
        count = (self.lengths * width)[:, None, None, None]
        mean = (grouped * mask).sum((2, 3), keepdim=True) / count
        centred = grouped - mean
        variance = (centred * mask).square().sum((2, 3), keepdim=True) / count
        normed: Tensor = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        if not self.affine:
            return normed
        return normed * self.weight[first:last, None] + self.bias[first:last, None]


class FrontConvolutions(WithLengths):
    """Replaces a network's `feature_extractor`, keeping its layers and their names.

    Without lengths its numbers equal transformers' bit for bit.

    Args:
        conv_layers: Layers of transformers' feature encoder; a group norm of the first is replaced.
    """

    def __init__(self, conv_layers: nn.ModuleList) -> None:
        super().__init__()
        self.conv_layers = conv_layers
        first: Any = conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = MaskedGroupNorm.like(first.layer_norm)

    def forward(self, samples: Tensor) -> Tensor:
        """`[B, C, T]` of waveforms `[B, L]`; frames of padding get some finite value."""
        norm = getattr(self.conv_layers[0], "layer_norm", None)
        if self.lengths is None or not isinstance(norm, MaskedGroupNorm):
            return self._convolve(samples)
        with norm.given(self.frames(self.lengths, layers=1)):
            return self._convolve(samples)

    def frames(self, samples: Tensor, *, layers: int | None = None) -> Tensor:
        """Number of frames that the first layers, or all, make of `samples` `[B]`."""
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
