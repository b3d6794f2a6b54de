"""emotion2vec base (Ma et al. 2023, arXiv 2312.15185), under the key names of its checkpoint.

A data2vec 2.0 encoder (Baevski et al. 2022, arXiv 2212.07525) without its decoder: convolutions
over the waveform, convolutional positions, ten extra tokens, and twelve post-norm blocks whose
attention is biased by distance (ALiBi, Press et al. 2021, arXiv 2108.12409). 93,171,212 parameters
in 183 tensors.

Where we differ: padding is masked exactly, so that a frame of a batch is that of the clip alone.

Legend: B batch, L samples, T frames, E extra tokens, N = E + T tokens, H heads, D width,
C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from features.checkpoint_files import load_strictly
from features.errors import CheckpointError
from features.networks.emotion2vec_layers import (
    Block,
    LocalEncoder,
    PositionalConvolutions,
    alibi_slopes,
    frame_count,
)

AUDIO = "modality_encoders.AUDIO."
WRAPPER = "d2v_model."  # what FunASR's own checkpoints put ahead of every name


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; those of the base model by default.

    Attributes:
        dim: Width D.
        heads: Attention heads H.
        ffn: Hidden width of a block's feed-forward layers.
        channels: Channels C of the convolutions over the waveform.
        extra_tokens: Tokens E ahead of the frames.
        positions: Layers of the positional convolutions.
        groups: Groups of each of them.
        prenet_depth: Blocks of the audio encoder.
        depth: Blocks after it.
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
        """The sizes that the shapes of a state dict (of public names) tell.

        Raises:
            KeyError: If a tensor that tells one is missing.
        """
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


class ContextEncoder(nn.Module):
    """The prenet: a norm, and the blocks that belong to the audio encoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.dim)
        self.blocks = _blocks(sizes, sizes.prenet_depth)


class AudioEncoder(nn.Module):
    """From waveforms to tokens, and the bias of all attention."""

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
        """Attention bias `[B, H, N, N]`: minus scale x slope x |i - j|, and no padded key.

        Distances count frames; to and from extra tokens there is none. The learned scale is
        clamped at 0, so that attention never grows with distance.
        """
        scale = self.alibi_scale.float().flatten().clamp(min=0)
        slopes = scale * torch.tensor(alibi_slopes(len(scale)), device=scale.device)
        place = torch.arange(mask.shape[1], device=mask.device)
        distance = (place[:, None] - place).abs()
        extra = self.extra_tokens.shape[1]
        # The extra tokens' rows and columns.
        bias = nn.functional.pad(-slopes[:, None, None] * distance, (extra, 0, extra, 0))
        exists = nn.functional.pad(mask, (extra, 0), value=True)
        return bias.masked_fill(~exists[:, None, None], -torch.inf)


class Emotion2vec(nn.Module):
    """States of every block.

    Args:
        sizes: Widths and depths.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.modality_encoders = nn.ModuleDict({"AUDIO": AudioEncoder(sizes)})
        self.blocks = _blocks(sizes, sizes.depth)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """States of the frames, without the extra tokens, and the mask of those that exist.

        Args:
            samples: Waveforms `[B, L]` of zero mean and unit variance each, zeros after the end.
            lengths: Valid samples `[B]`, at least 400.

        Returns:
            States `[B, T, D]`: 0 is the input of the first prenet block (after its norm), then one
            a block; and the mask `[B, T]`. Padded frames hold no meaning.
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
        """Drop the blocks above the first `layers`: they are not wanted."""
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

    Names may carry the prefix `d2v_model.`. What the network does not have (decoder, averages of
    its weights, a classifier, encoders of other modalities) is left aside; what it has must be
    there.

    Args:
        sizes: Widths and depths; None reads them from the weights, or takes the base model's.
        weights: Tensors under their public names.
        source: Where the weights come from, for errors.

    Raises:
        CheckpointError: If weights are missing or of another shape.
    """
    if weights is None:
        return Emotion2vec(sizes or Sizes()).eval()
    named = {name.removeprefix(WRAPPER): tensor for name, tensor in weights.items()}
    try:
        network = Emotion2vec(sizes or Sizes.of(named)).eval()
    except KeyError as error:
        raise CheckpointError(
            f"checkpoint {source!r} is not one of emotion2vec: it has no {error}; expected a file "
            f"such as emotion2vec_base.pt"
        ) from error
    own = network.state_dict()
    load_strictly(network, {name: named[name] for name in own if name in named}, source)
    return network


def _blocks(sizes: Sizes, count: int) -> nn.ModuleList:
    return nn.ModuleList(Block(sizes.dim, sizes.heads, sizes.ffn) for _ in range(count))


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in weights)
