"""Backbones whose weights are not available: networks of the real shape with random weights.

What a fusion costs does not depend on the weights of its backbones, what it scores does: random
features of sound are worth something, but less than learned ones. A score of theirs says that the
path works from audio to report, and no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from features.networks import ced, emotion2vec
from pipeline.params.file import Params

SEED = 0
SUFFIX = "random"
FILE = "model.safetensors"
_NETWORKS: dict[str, Callable[[], nn.Module]] = {"ced": ced.build, "emotion2vec": emotion2vec.build}


def with_random_weights(params: Params, folder: Path) -> Params:
    """The params with the entries that read what `make_checkpoint` writes.

    Args:
        params: Of params.yaml.
        folder: Where the checkpoints lie, or will.

    Returns:
        With the backbones `ced_random` and `emotion2vec_random` (CED-small and emotion2vec base,
        each a vector an utterance), `emotion2vec_frames_random`, and the models that use them.
    """
    at = {kind: str((folder / kind).resolve()) for kind in _NETWORKS}
    new: dict[str, Any] = {}
    for name, kind, pooling in (
        ("ced", "ced", "mean"),
        ("emotion2vec", "emotion2vec", "mean"),
        ("emotion2vec_frames", "emotion2vec", "frames"),
    ):
        entry = params.backbones[kind] | {"checkpoint": at[kind], "pooling": pooling}
        new[f"{name}_{SUFFIX}"] = entry
    models = {
        "spectral": {"spectral": "ced"},
        "speech": {"speech": "emotion2vec_frames"},
        "gat": {"spectral": "ced"},
        "heron": {"nonverbal": "emotion2vec_frames"},
        "lpgnet": {"speech": "emotion2vec"},
    }
    added = {
        "_".join([model, *slots.values()]): _with(params.models[model], slots, model)
        for model, slots in models.items()
    }
    return dataclasses.replace(
        params, backbones={**params.backbones, **new}, models={**params.models, **added}
    )


def make_checkpoint(entry: Mapping[str, Any]) -> None:
    """Write the checkpoint that a backbone's entry names, unless it is there."""
    folder = Path(entry["checkpoint"])
    if (folder / FILE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    tensors = _NETWORKS[entry["kind"]]().state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / FILE)


def _with(model: Mapping[str, Any], slots: Mapping[str, str], kind: str) -> dict[str, Any]:
    return {"kind": kind, **model} | {slot: f"{name}_{SUFFIX}" for slot, name in slots.items()}
