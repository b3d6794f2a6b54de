"""A small emotion2vec checkpoint, wrapped as the public one may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from features.networks.emotion2vec import Sizes
from features.networks.emotion2vec import build as build_network
from tests.support.models.golden_fill import fill

# Six heads, so that the slopes are not those of a power of two.
SMALL = Sizes(
    dim=48,
    heads=6,
    ffn=96,
    channels=24,
    extra_tokens=3,
    positions=2,
    groups=4,
    prenet_depth=2,
    depth=3,
)


def weights(sizes: Sizes = SMALL) -> dict[str, Tensor]:
    """Formula-made weights under the public names."""
    with torch.device("meta"):
        state = build_network(sizes).state_dict()
    return {name: torch.from_numpy(array) for name, array in fill(state, "g1:").items()}


def wrapped(folder: Path) -> dict[str, Any]:
    """Under `model`, with FunASR's prefix, beside a decoder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"d2v_model.{name}": tensor for name, tensor in weights().items()}
    decoder = {"d2v_model.modality_encoders.AUDIO.decoder.proj.weight": torch.ones(2, 2)}
    torch.save({"model": tensors | decoder, "epoch": 3}, folder / "emotion2vec_base.pt")
    return {"checkpoint": str(folder)}


def plus(folder: Path) -> dict[str, Any]:
    """As emotion2vec+: a classifier of nine emotions beside it, which has no prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"d2v_model.{name}": tensor for name, tensor in weights().items()}
    head = {"proj.weight": torch.ones(9, SMALL.dim), "proj.bias": torch.ones(9)}
    torch.save({"model": tensors | head}, folder / "model.pt")
    return {"checkpoint": str(folder)}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {"wrapped": wrapped, "plus": plus}
