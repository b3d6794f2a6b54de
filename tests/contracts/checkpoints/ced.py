"""CED checkpoints of formula-made weights, in both public layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from features.backbone.base import Inputs
from features.networks.ced import CHUNK, MELS
from features.networks.ced import build as build_network
from tests.support.models.golden import golden
from tests.support.models.golden_fill import fill

SALT = "g1:"


def public_small() -> dict[str, Tensor]:
    """CED-small under the names of the original layout, classifier and front end included."""
    entries = golden("ced_keys.json")["parameters"]
    with torch.device("meta"):
        shapes = {
            entry["key"]: torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]))
            for entry in entries
            if not entry.get("untouched")
        }
    tensors = {name: torch.from_numpy(array) for name, array in fill(shapes, SALT).items()}
    untouched = {
        entry["key"]: torch.zeros(entry["shape"], dtype=getattr(torch, entry["dtype"]))
        for entry in entries
        if entry.get("untouched")
    }
    return tensors | untouched


def hub_layout(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as the hub's repositories name them: no front end, a bare classifier."""
    renamed = {
        name if name.startswith("outputlayer.") else f"encoder.{name}": tensor
        for name, tensor in original.items()
        if not name.startswith("front_end.")
    }
    return {name.replace("init_bn.1.", "init_bn."): tensor for name, tensor in renamed.items()}


def tiny_weights(depth: int = 2) -> dict[str, Tensor]:
    """CED-tiny's sizes with a few blocks, named as in the network: half of either layout."""
    with torch.device("meta"):
        state = build_network(192, depth, 3).state_dict()
    count = state.pop("init_bn.num_batches_tracked")
    tensors = {name: torch.from_numpy(array) for name, array in fill(state, SALT).items()}
    return tensors | {"init_bn.num_batches_tracked": torch.zeros(count.shape, dtype=count.dtype)}


def small(folder: Path) -> dict[str, Any]:
    """The full small network in one file of the original layout, wrapped."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audiotransformer_small_mAP_4958.pt"
    torch.save({"model": public_small()}, path)
    return {"checkpoint": str(path)}


def tiny(folder: Path, depth: int = 2) -> dict[str, Any]:
    """A few blocks of the tiny network in a folder of the hub's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hub_layout(tiny_weights(depth)), folder / "model.safetensors")
    return {"checkpoint": str(folder)}


def inputs_of(*mels: Tensor) -> Inputs:
    """What `prepare` makes of clips whose decibels `[64, F]` are given."""
    frames = torch.tensor([mel.shape[1] for mel in mels])
    chunks = -(-int(frames.max()) // CHUNK)
    width = min(int(frames.max()), CHUNK)
    batch = mels[0].new_zeros(len(mels), chunks, MELS, width)
    for row, mel in zip(batch, mels, strict=True):
        for number, piece in enumerate(torch.split(mel, CHUNK, dim=1)):
            row[number, :, : piece.shape[1]] = piece
    return Inputs(tuple(str(n) for n in range(len(mels))), {"mel": batch, "frames": frames})


def random_mel(frames: int, *, seed: int = 0) -> Tensor:
    """Noise `[64, F]` in the range of decibels."""
    return -10 + 20 * torch.randn(MELS, frames, generator=torch.Generator().manual_seed(seed))


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {"small": small, "tiny": tiny}
