"""Layers of emotion2vec: convolutions over the waveform, positions, biased attention.

Parameters carry the names of the public checkpoint, which counts dropouts and transpositions too.

Legend: B batch, L samples, T frames, N tokens, H heads, D width, C channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

# Kernel and stride of each convolution over the waveform: 400 samples seen, 320 (20 ms) a step.
CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
POSITION_KERNEL = 19  # frames


def frame_count(samples: Any) -> Any:
    """Frames of a clip: int to int, or Tensor to Tensor; 16,000 samples give 49."""
    for kernel, stride in CONVOLUTIONS:
        samples = (samples - kernel) // stride + 1
    return samples


def alibi_slopes(heads: int) -> list[float]:
    """What a frame's distance costs in each head: 2^(-8/H), 2^(-16/H), ... 2^-8.

    Where H is no power of two, the slopes for the power below come first, then every other one of
    those for the power above.

    >>> alibi_slopes(6)
    [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8 * (k + 1) / power) for k in range(power)]
    between = [2.0 ** (-4 * (2 * k + 1) / power) for k in range(heads - power)]
    return slopes + between


class LocalEncoder(nn.Module):
    """Convolutions over the waveform, `[B, L] -> [B, C, T]`.

    They pad nothing and normalise each frame by itself, so valid frames see valid samples alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList()
        width = 1
        for kernel, stride in CONVOLUTIONS:
            convolution = nn.Conv1d(width, channels, kernel, stride, bias=False)
            norm = nn.ModuleList([nn.Identity(), nn.LayerNorm(channels)])
            self.conv_layers.append(nn.ModuleList([convolution, nn.Identity(), norm]))
            width = channels

    def forward(self, samples: Tensor) -> Tensor:
        """Features `[B, C, T]` of waveforms `[B, L]`."""
        x = samples[:, None]
        layers: Any = self.conv_layers
        for convolution, _, (_, norm) in layers:
            x = F.gelu(norm(convolution(x).transpose(1, 2)).transpose(1, 2))
        return x


class PositionalConvolutions(nn.ModuleList):
    """What tells the frames their order, `[B, T, D] -> [B, T, D]`, to be added to them."""

    def __init__(self, dim: int, layers: int, groups: int) -> None:
        kernel, padding = POSITION_KERNEL, POSITION_KERNEL // 2
        convolutions = [
            nn.Conv1d(dim, dim, kernel, padding=padding, groups=groups) for _ in range(layers)
        ]
        super().__init__([nn.Identity(), *(nn.ModuleList([layer]) for layer in convolutions)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Positions of frames `x` that exist where `mask` `[B, T]` is True."""
        kept = mask[..., None].to(x.dtype)
        layers: Any = list(self)[1:]
        for (convolution,) in layers:
            # Zeros are what a clip alone has beyond its end.
            x = convolution((x * kept).transpose(1, 2)).transpose(1, 2)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
        return x


class Attention(nn.Module):
    """Self-attention of H heads with a bias on its scores."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, D]` with `bias` `[B, H, N, N]` or what broadcasts to it."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D] -> [..., D]`."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Post-norm transformer block: each sum is normalised."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, hidden)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, D]`."""
        x = self.norm1(x + self.attn(x, bias))
        return self.norm2(x + self.mlp(x))  # type: ignore[no-any-return]
