"""Weight files read without unpickling: safetensors, or torch files with `weights_only=True`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  what torch raises; nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from features.errors import CheckpointError
from features.files import file_sha256

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
WEIGHTS = "model.safetensors"
CONTENT = "sha256:"  # begins a revision that is a hash of content
UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, KeyError, SafetensorError)


def read_tensors(path: Path, *, wrappers: tuple[str, ...] = ("model", "state_dict")) -> Any:
    """Named tensors of a weight file.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote.
        wrappers: Keys under which public checkpoints keep their state dict.

    Raises:
        CheckpointError: If the file is unreadable, holds more than tensors and plain values, or
            no tensors at all.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read without executing what it contains; expected tensors and plain "
            "values alone (safetensors, or torch.save of a state dict): convert it where you "
            f"trust it ({_first_line(error)})"
        ) from error
    except Exception as error:  # damaged bytes can make the reader fail in any way
        raise CheckpointError(
            f"{path} is no readable weight file ({_first_line(error)}); expected one of "
            f"{', '.join(SUFFIXES)}: download it again"
        ) from error
    for wrapper in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = dict(content) if isinstance(content, Mapping) else {}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors; expected a state dict")
    return tensors


def check_content(name: str, revision: str | None, path: Path | None) -> None:
    """Refuse weights that are not those that a revision names by their hash.

    Args:
        name: Of the checkpoint.
        revision: `sha256:` and the hash of model.safetensors; any other is not looked at.
        path: That file; None: there is none.

    Raises:
        CheckpointError: If it is another file.
    """
    if revision is None or not revision.startswith(CONTENT):
        return
    found = None if path is None else CONTENT + file_sha256(path)
    if found != revision:
        raise CheckpointError(
            f"checkpoint {name!r} has revision {revision}; expected a local folder whose {WEIGHTS} "
            f"has that hash, found {found}: train it again, or correct `revision` in params.yaml "
            "so that its features are extracted anew"
        )


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into a network in place; every name and shape must fit.

    Raises:
        CheckpointError: Naming what is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    missing, unexpected = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(tensors))
        if tensors[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"checkpoint {source!r} is not one of {type(network).__name__}: {len(missing)} weights "
            f"missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}"
        )
    network.load_state_dict(tensors)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
