"""emotion2vec and emotion2vec+ (Ma et al. 2023, arXiv 2312.15185), under their checkpoints' names.

A data2vec 2.0 encoder (Baevski et al. 2022, arXiv 2212.07525) without its decoder: convolutions
over the waveform, convolutional positions, ten extra tokens, and twelve post-norm blocks whose
attention is biased by distance (ALiBi, Press et al. 2021, arXiv 2108.12409). 183 tensors:
93,171,212 parameters 768 wide (emotion2vec base; emotion2vec+ seed and base), or 162,130,960 at
1024 (emotion2vec+ large, whose card says "~300M"). emotion2vec+ adds a classifier of nine emotions,
which no state depends on. The checkpoint numbers dropouts and transpositions among its layers,
hence the `nn.Identity`s.

Differences from the public code: padding is masked exactly, so that a frame of a batch equals that
of the clip alone.

Shapes: B batch, L samples, T frames, E extra tokens, N = E + T tokens, H heads, D width,
C channels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.errors import CheckpointError
from features.weights.tensors import load_strictly

# Kernel and stride of each convolution over the waveform: 400 samples seen, 320 (20 ms) a step.
CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
POSITION_KERNEL = 19  # frames
AUDIO = "modality_encoders.AUDIO."  # prefix of the audio encoder's tensors
WRAPPER = "d2v_model."  # prefix of the encoder's names in FunASR's own checkpoints
# Tensors beside the encoder that checkpoints have for their training, or for their labels. What is
# in none of them is refused: it may be a part that the public network computes with and this one
# does not, such as a final norm.
BESIDE = {
    "classifier": re.compile(r"(proj|head|classifier)\..+"),
    "decoder": re.compile(rf"({re.escape(AUDIO)}|shared_)decoder\..+|recon_proj\..+"),
    "moving average": re.compile(r"_?ema\..+"),
    "other modalities": re.compile(r"modality_encoders\.(?!AUDIO\.).+"),
}


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; those of emotion2vec base, emotion2vec+ seed and base by default.

    Attributes:
        dim: Width D.
        heads: Attention heads H.
        ffn: Hidden width of a block's feed-forward layers.
        channels: Channels C of the convolutions over the waveform.
        extra_tokens: Tokens E ahead of the frames.
        positions: Layers of the positional convolutions.
        groups: Groups of each of them.
        prenet_depth: Blocks of the audio encoder.
        depth: Blocks after the audio encoder.
    """

    dim: int = 768
    heads: int = 12
    ffn: int = 3072
    channels: int = 512
    extra_tokens: int = 10
    positions: int = 5
    groups: int = 16
    prenet_depth: int = 4
    depth: int = 8

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        """Sizes from the shapes of a state dict; a KeyError if a tensor is missing."""
        positional = weights[f"{AUDIO}relative_positional_encoder.1.0.weight"]
        return cls(
            dim=weights[f"{AUDIO}project_features.2.weight"].shape[0],
            heads=weights[f"{AUDIO}alibi_scale"].numel(),
            ffn=weights["blocks.0.mlp.fc1.weight"].shape[0],
            channels=weights[f"{AUDIO}project_features.2.weight"].shape[1],
            extra_tokens=weights[f"{AUDIO}extra_tokens"].shape[1],
            positions=_count(weights, rf"{AUDIO}relative_positional_encoder\.\d+\.0\.weight"),
            groups=positional.shape[0] // positional.shape[1],
            prenet_depth=_count(weights, rf"{AUDIO}context_encoder\.blocks\.\d+\.norm1\.weight"),
            depth=_count(weights, r"blocks\.\d+\.norm1\.weight"),
        )


LARGE = Sizes(dim=1024, heads=16, ffn=4096)  # emotion2vec+ large: wider, and no deeper


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in weights)


def frame_count(samples: Any) -> Any:
    """Number of frames of a clip: int to int, or Tensor to Tensor; 16,000 samples give 49."""
    for kernel, stride in CONVOLUTIONS:
        samples = (samples - kernel) // stride + 1
    return samples


def alibi_slopes(heads: int) -> list[float]:
    """Attention penalty of each head for a frame's distance: 2^(-8/H), 2^(-16/H), ... 2^-8.

    If H is no power of two, the slopes for the power below come first, then every other slope for
    the power above.

    >>> alibi_slopes(6)
    [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8 * (k + 1) / power) for k in range(power)]
    between = [2.0 ** (-4 * (2 * k + 1) / power) for k in range(heads - power)]
    return slopes + between


class LocalEncoder(nn.Module):
    """Convolutions over the waveform, `[B, L] -> [B, C, T]`.

    Nothing is padded and each frame is normalised by itself, so valid frames see valid samples.
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
    """Positions of the frames, `[B, T, D] -> [B, T, D]`, to be added to them."""

    def __init__(self, dim: int, layers: int, groups: int) -> None:
        kernel, padding = POSITION_KERNEL, POSITION_KERNEL // 2
        convolutions = [
            nn.Conv1d(dim, dim, kernel, padding=padding, groups=groups) for _ in range(layers)
        ]
        super().__init__([nn.Identity(), *(nn.ModuleList([layer]) for layer in convolutions)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Positions of the frames `x`, which exist where `mask` `[B, T]` is True."""
        kept = mask[..., None].to(x.dtype)
        layers: Any = list(self)[1:]
        for (convolution,) in layers:
            # A clip alone is padded by zeros, so its padding in a batch must be zero too.
            x = convolution((x * kept).transpose(1, 2)).transpose(1, 2)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
        return x


class Attention(nn.Module):
    """Self-attention of H heads with biased scores."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, D]` with `bias` `[B, H, N, N]` or what broadcasts to it."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # In the precision of the bias, also under autocast, which would round it: bfloat16 has 8
        # bits, so that frames more than 256 apart would share their distances with neighbours.
        query, key, value = parts.to(torch.promote_types(parts.dtype, bias.dtype))
        with torch.autocast(x.device.type, enabled=False):
            mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        mixed = mixed.to(parts.dtype)
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


def _blocks(sizes: Sizes, count: int) -> nn.ModuleList:
    return nn.ModuleList(Block(sizes.dim, sizes.heads, sizes.ffn) for _ in range(count))


class ContextEncoder(nn.Module):
    """Prenet: a norm and the blocks of the audio encoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.dim)
        self.blocks = _blocks(sizes, sizes.prenet_depth)


class AudioEncoder(nn.Module):
    """Computes tokens from waveforms, and the attention bias of all blocks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.extra_tokens = nn.Parameter(torch.zeros(1, sizes.extra_tokens, sizes.dim))
        self.alibi_scale = nn.Parameter(torch.ones(1, 1, sizes.heads, 1, 1))
        self.local_encoder = LocalEncoder(sizes.channels)
        self.project_features = nn.Sequential(
            nn.Identity(), nn.LayerNorm(sizes.channels), nn.Linear(sizes.channels, sizes.dim)
        )
        self.relative_positional_encoder = PositionalConvolutions(
            sizes.dim, sizes.positions, sizes.groups
        )
        self.context_encoder = ContextEncoder(sizes)

    def tokens(self, samples: Tensor, mask: Tensor) -> Tensor:
        """Extra tokens and frames `[B, N, D]`, normalised: the input of the first block."""
        frames = self.project_features(self.local_encoder(samples).transpose(1, 2))
        frames = frames + self.relative_positional_encoder(frames, mask)
        extra = self.extra_tokens.expand(len(frames), -1, -1)
        tokens: Tensor = self.context_encoder.norm(torch.cat([extra, frames], dim=1))
        return tokens

    def bias(self, mask: Tensor) -> Tensor:
        """Attention bias `[B, H, N, N]`: -scale * slope * |i - j| in frames, and -inf for padding.

        It is 0 to and from extra tokens. The learned scale is clamped at 0, so that attention never
        grows with distance.
        """
        scale = self.alibi_scale.float().flatten().clamp(min=0)
        slopes = scale * torch.tensor(alibi_slopes(len(scale)), device=scale.device)
        place = torch.arange(mask.shape[1], device=mask.device)
        distance = (place[:, None] - place).abs()
        extra = self.extra_tokens.shape[1]
        # Zeros for the rows and columns of the extra tokens.
        bias = nn.functional.pad(-slopes[:, None, None] * distance, (extra, 0, extra, 0))
        exists = nn.functional.pad(mask, (extra, 0), value=True)
        return bias.masked_fill(~exists[:, None, None], -torch.inf)


class Emotion2vec(nn.Module):
    """The network, which returns the states of every block.

    Attributes:
        sizes: Widths and depths.
        beside: Number of the checkpoint's tensors that are not loaded, by the part of `BESIDE`.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.beside: dict[str, int] = {}
        self.modality_encoders = nn.ModuleDict({"AUDIO": AudioEncoder(sizes)})
        self.blocks = _blocks(sizes, sizes.depth)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """States of the frames, without the extra tokens, and the mask of those that exist.

        Args:
            samples: Waveforms `[B, L]` of zero mean and unit variance each, zeros after the end.
            lengths: Valid samples `[B]`, at least 400.

        Returns:
            States `[B, T, D]`: 0 is the input of the first prenet block (after its norm), then one
            a block; and the mask `[B, T]`. Padded frames have no meaning.
        """
        audio: AudioEncoder = self.modality_encoders["AUDIO"]  # type: ignore[assignment]
        frames = torch.arange(frame_count(samples.shape[1]), device=samples.device)
        mask = frames < frame_count(lengths)[:, None]
        tokens, bias = audio.tokens(samples, mask), audio.bias(mask)
        states = [tokens]
        for block in [*audio.context_encoder.blocks, *self.blocks]:
            states.append(block(states[-1], bias))
        return [state[:, self.sizes.extra_tokens :] for state in states], mask

    def keep(self, layers: int) -> None:
        """Keep the first `layers` blocks, those of the prenet included."""
        audio: AudioEncoder = self.modality_encoders["AUDIO"]  # type: ignore[assignment]
        prenet = audio.context_encoder.blocks
        audio.context_encoder.blocks = prenet[:layers]
        self.blocks = self.blocks[: max(0, layers - len(prenet))]


def build(
    sizes: Sizes | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> Emotion2vec:
    """The network in eval mode, with the weights of a state dict if one is given.

    Names may have the prefix `d2v_model.`. Tensors of the parts in `BESIDE` are counted and not
    loaded; any other name or shape has to be the network's.

    Args:
        sizes: Widths and depths; None reads them from the weights, or takes the base model's.
        weights: Tensors under their public names.
        source: Origin of the weights, for errors.

    Raises:
        CheckpointError: If weights are missing, of another shape or unknown, naming the first.
    """
    if weights is None:
        return Emotion2vec(sizes or Sizes()).eval()
    named = {name.removeprefix(WRAPPER): tensor for name, tensor in weights.items()}
    try:
        network = Emotion2vec(sizes or Sizes.of(named)).eval()
    except KeyError as error:
        raise CheckpointError(
            f"checkpoint {source!r} is not one of emotion2vec: it has no {error}; expected a file "
            f"such as emotion2vec_base.pt, or model.pt of emotion2vec+"
        ) from error
    parts = {name: _part(name) for name in named}
    counts = Counter(part for part in parts.values() if part is not None)
    network.beside = {part: counts[part] for part in BESIDE if part in counts}
    load_strictly(network, {n: t for n, t in named.items() if parts[n] is None}, source)
    return network


def _part(name: str) -> str | None:
    """The part of `BESIDE` that a tensor belongs to; None: the encoder, or unknown."""
    return next((part for part, names in BESIDE.items() if names.fullmatch(name)), None)
