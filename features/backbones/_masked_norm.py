"""Group normalisation over time that padding does not reach.

The first convolution of wav2vec 2.0's base models is followed by a group norm whose mean and
variance are taken over the whole clip. In a padded batch transformers takes them over the padding
as well, which moves every state by as much as its own size, attention mask or not. Here each clip
has the statistics of its own frames, so that it is normalised as it would be alone.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from features.backbones._told_lengths import ToldLengths


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
