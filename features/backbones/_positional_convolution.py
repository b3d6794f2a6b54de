"""The positional convolution of wav2vec 2.0's family, faster where a CPU trains behind it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from features.networks.fourier_convolution import WORTH_IT, fourier_convolution


class PositionalConvolution(nn.Module):
    """What stands in the place of a network's `pos_conv_embed`, with its layers and their names.

    Without gradients its numbers are those of transformers' bit for bit, so that nothing stored
    depends on it; with them, on a CPU, they are to rounding.

    Args:
        positions: transformers' module: a convolution of kernel K, something that drops the frame
            too many of an even K, and an activation.
    """

    def __init__(self, positions: Any) -> None:
        super().__init__()
        self.conv, self.padding = positions.conv, positions.padding
        self.activation = positions.activation

    @classmethod
    def take_the_place(cls, encoder: Any) -> None:
        """Of the positional convolution of an encoder, if it has one and nothing more there."""
        positions = getattr(encoder, "pos_conv_embed", None)
        conv = getattr(positions, "conv", None)
        if isinstance(conv, nn.Conv1d) and getattr(positions, "batch_norm", None) is None:
            encoder.pos_conv_embed = cls(positions)

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, T, D] -> [B, T, D]`."""
        frames = frames.transpose(1, 2)
        made = self._by_fourier(frames) if _worth_it(frames) else self.conv(frames)
        positions: Tensor = self.activation(self.padding(made)).transpose(1, 2)
        return positions

    def _by_fourier(self, frames: Tensor) -> Tensor:
        """Transforms are made again for the backward pass: kept, they would be the peak's 2 %."""
        conv: Any = self.conv
        (padding,) = conv.padding
        made: Tensor = checkpoint(
            partial(fourier_convolution, groups=conv.groups, padding=padding),
            *(frames, conv.weight, conv.bias),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return made


def _worth_it(frames: Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        and frames.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")  # there are no transforms in bfloat16
        and frames.shape[0] * frames.shape[2] >= WORTH_IT
    )
