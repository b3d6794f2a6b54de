"""CED (Dinkel et al. 2023, arXiv 2308.11957): a transformer over patches of a mel spectrogram.

An audio tagger distilled from an ensemble on AudioSet, here without its head of 527 classes. A
patch is 16 mel bands by 16 frames (160 ms); a chunk of up to 1012 frames has 4 x 63 of them, and
its last 4 frames belong to no patch. Twelve pre-norm blocks with exact GELU, LayerNorm eps 1e-6.
Parameters without head: tiny 5.4 M (192 wide, 3 heads), mini 9.6 M (256, 4), small 21,418,880 (384,
6), base 85.3 M (768, 12).

Differences from the public code: chunks of different lengths are computed in one pass, with the
patches that a chunk lacks masked in attention. The 120 dB range of the spectrogram is that of each
clip; the public code takes the maximum of a whole batch, so that there a clip depends on its
batch-mates.

Shapes: L samples, N chunks, W frames, T patches in time, S = 4 T tokens (all times of the lowest
band first), H heads, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.audio.torchaudio_cpu import functional
from features.errors import CheckpointError
from features.weights.tensors import load_strictly

# Spectrogram.
SAMPLE_RATE = 16_000  # Hz
WINDOW = 512  # samples, of the window and of the Fourier transform
HOP = 160  # samples from one frame to the next: 10 ms
MELS = 64
F_MAX = 8000.0  # Hz
FLOOR = 1e-10  # power below which the logarithm is cut off
TOP_DB = 120.0  # dynamic range of a clip

# Network.
CHUNK = 1012  # frames, at most, that are computed together: 10.12 s
PATCH = 16  # frames, and mel bands
BANDS = MELS // PATCH  # patches of each time
TIMES = CHUNK // PATCH  # patches of a whole chunk in time
HEAD_WIDTH = 64
EPSILON = 1e-6  # of the layer norms
HUB_PREFIX = "encoder."
UNUSED = ("outputlayer.", "front_end.")  # the classifier; window and filters, which are made here


def frame_count(samples: int) -> int:
    """Number of frames of a clip, the first centred on its first sample."""
    return 1 + samples // HOP


@dataclass(frozen=True)
class DecibelMel:
    """Mel spectrogram in decibels: a function with two constants.

    Power spectrum of a 32 ms periodic Hann window each 10 ms, centred with reflection; HTK mel
    scale from 0 to 8000 Hz without area normalisation.

    Attributes:
        window: Window `[512]`.
        bank: Filters `[257, 64]`.
    """

    window: Tensor = field(default_factory=lambda: torch.hann_window(WINDOW))
    bank: Tensor = field(
        default_factory=lambda: functional.melscale_fbanks(
            WINDOW // 2 + 1, 0.0, F_MAX, MELS, SAMPLE_RATE
        )
    )

    def __call__(self, samples: Tensor) -> Tensor:
        """Decibels `[64, T]` of one whole clip `[L]`, with T = 1 + floor(L / 160)."""
        spectrum = torch.stft(
            samples,
            WINDOW,
            HOP,
            WINDOW,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        # Not `spectrum.abs().square()`: the magnitude guards against overflow, which takes twice as
        # long as the transform.
        power = self.bank.T @ (spectrum.real.square() + spectrum.imag.square())
        decibels: Tensor = 10.0 * power.clamp(min=FLOOR).log10()
        return decibels.clamp(min=float(decibels.max()) - TOP_DB)


@dataclass(frozen=True)
class Sizes:
    """Width and depth; those of CED-small by default.

    Attributes:
        width: Width D, 64 for each head.
        depth: Number of blocks.
        heads: Attention heads H.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        """Sizes from the shapes of a state dict; a KeyError if a tensor is missing."""
        width = weights["patch_embed.proj.weight"].shape[0]
        depth = sum(
            re.fullmatch(r"blocks\.\d+\.norm1\.weight", name) is not None for name in weights
        )
        return cls(width, depth, width // HEAD_WIDTH)  # no tensor has an axis for heads


class PatchEmbedding(nn.Module):
    """Projects each patch of 16 bands by 16 frames to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, stride=PATCH)

    def forward(self, mel: Tensor) -> Tensor:
        """Patches `[N, D, 4, T]` of `[N, 64, W]`, T = floor(W / 16)."""
        patches: Tensor = self.proj(mel[:, None])
        return patches


class Attention(nn.Module):
    """Self-attention with scale 1 / sqrt(D / H)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """New tokens `[N, S, D]`; `mask` `[N, 1, 1, S]` is True for keys that exist."""
        query, key, value = (
            self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    """Two linear layers with exact GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[N, S, D]`, each token by itself."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a norm and with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = MLP(width)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """`[N, S, D]` as in `Attention`."""
        tokens = tokens + self.attn(self.norm1(tokens), mask)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class CED(nn.Module):
    """The network, which returns the hidden states of every block."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.init_bn = nn.BatchNorm1d(MELS)
        self.patch_embed = PatchEmbedding(sizes.width)
        self.time_pos_embed = nn.Parameter(torch.zeros(1, sizes.width, 1, TIMES))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, sizes.width, BANDS, 1))
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.norm: nn.Module = nn.LayerNorm(sizes.width, eps=EPSILON)
        for table in (self.time_pos_embed, self.freq_pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, mel: Tensor, frames: Tensor, patches: Tensor) -> list[Tensor]:
        """States `[N, 4, T, D]`: 0 the input of the first block, then one a block, the last normed.

        Args:
            mel: Decibels `[N, 64, W]` of N chunks, 16 to 1012 frames.
            frames: Number of existing frames `[N]`; the others become 0 after the batch norm.
            patches: Number of patches in time that take part, `[N]`, at least 1. States of the
                others have no meaning.
        """
        embedded = self.patch_embed(self.normalized(mel, frames))
        times = embedded.shape[-1]
        embedded = embedded + self.time_pos_embed[..., :times] + self.freq_pos_embed
        # Contiguous, since all sums and norms after it would be slower in a transposed layout.
        states = [embedded.flatten(2).transpose(1, 2).contiguous()]
        takes_part = torch.arange(times, device=mel.device) < patches[:, None]
        # Without a mask attention has faster kernels.
        mask = None if bool(takes_part.all()) else takes_part.repeat(1, BANDS)[:, None, None]
        for block in self.blocks:
            states.append(block(states[-1], mask))
        states[-1] = self.norm(states[-1])
        return [state.unflatten(1, (BANDS, times)) for state in states]

    def normalized(self, mel: Tensor, frames: Tensor) -> Tensor:
        """Batch norm of each mel band, `[N, 64, W]`, and 0 where no frame exists."""
        exists = torch.arange(mel.shape[-1], device=mel.device) < frames[:, None]
        normed: Tensor = self.init_bn(mel)
        return normed.masked_fill(~exists[:, None], 0.0)

    def keep(self, layers: int) -> None:
        """Keep the first `layers` blocks, and the final norm only with the last block."""
        if layers < len(self.blocks):
            self.blocks = self.blocks[:layers]
            self.norm = nn.Identity()


def build(
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    *,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "the given weights",
) -> CED:
    """The network in eval mode.

    Args:
        width: Width D.
        depth: Number of blocks.
        heads: Attention heads.
        weights: State dict with the names of the original code or of the hub's repositories; its
            shapes replace the sizes above.
        source: Origin of the weights, for errors.

    Raises:
        CheckpointError: If weights are missing, superfluous or of another shape.
    """
    if weights is None:
        return CED(Sizes(width, depth, heads)).eval()
    named = renamed(weights)
    try:
        sizes = Sizes.of(named)
    except KeyError as error:
        raise CheckpointError(
            f"checkpoint {source!r} is not one of CED: it has no {error}; expected a file such as "
            "model.safetensors of mispeech/ced-small"
        ) from error
    if not sizes.heads or sizes.width % HEAD_WIDTH:
        raise CheckpointError(
            f"checkpoint {source!r} is {sizes.width} wide; expected a multiple of {HEAD_WIDTH}, as "
            "in CED tiny (192), mini (256), small (384) and base (768)"
        )
    network = CED(sizes).eval()
    load_strictly(network, named, source)
    return network


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of either public layout under the network's names, without classifier and front end.

    The original layout has `init_bn.1.*`, the hub's the prefix `encoder.` and `init_bn.*`.
    """
    bare = {name.removeprefix(HUB_PREFIX): tensor for name, tensor in weights.items()}
    return {
        re.sub(r"^init_bn\.1\.", "init_bn.", name): tensor
        for name, tensor in bare.items()
        if not name.startswith(UNUSED)
    }
