"""Group normalisation over time that padding does not reach.

The first convolution of wav2vec 2.0's base models is followed by a group norm whose mean and
variance are taken over the whole clip. In a padded batch transformers takes them over the padding
as well, which moves every state by as much as its own size, attention mask or not. Here each clip
has the statistics of its own frames, so that it is normalised as it would be alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn


class MaskedGroupNorm(nn.GroupNorm):
    """A group norm that can be told how many frames of each clip exist.

    Without lengths it is `nn.GroupNorm` itself, so that what is not padded equals transformers bit
    for bit. Lengths are state of the module, since the network above it cannot hand them down;
    one network therefore computes one batch at a time.
    """

    lengths: Tensor | None = None

    @classmethod
    def like(cls, norm: nn.GroupNorm) -> Self:
        """The same norm, with the same parameters."""
        masked = cls(norm.num_groups, norm.num_channels, eps=norm.eps, affine=norm.affine)
        masked.weight, masked.bias = norm.weight, norm.bias
        return masked

    @contextlib.contextmanager
    def frames(self, lengths: Tensor) -> Iterator[None]:
        """Within this context, clip i has `lengths[i]` frames, `[B]`; what follows is padding."""
        self.lengths = lengths
        try:
            yield
        finally:
            self.lengths = None

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
