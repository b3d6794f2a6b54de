"""Reads weight files without unpickling: safetensors, or torch files with `weights_only=True`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  what torch raises; nothing is unpickled here
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from features.errors import CheckpointError
from features.files.json_text import parse_json
from features.files.reading import read_regular
from features.weights.checks import check_weights

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
WEIGHTS = "model.safetensors"
WRAPPERS = ("model", "state_dict")  # keys under which public checkpoints keep their state dict
INDEX = ".index.json"  # end of the name of a file that lists parts
# Weight files of a transformers folder, in the order in which transformers prefers them.
WEIGHT_FILES = (WEIGHTS, WEIGHTS + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
# What torch names in its message on a file that needs unpickling.
REFUSED = re.compile(r"(?:GLOBAL|class|function) ([\w.]+)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CONVERT = """\
  import torch, safetensors.torch; c = torch.load("{path}", "cpu", weights_only=False)
  safetensors.torch.save_file({{k: v.clone() for k, v in next((c[w] for w in ("model", \
"state_dict", "module") if w in c), c).items() if torch.is_tensor(v)}}, "{to}")"""


def read_tensors(path: Path, *, wrappers: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """Read the named tensors of a weight file.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote.
        wrappers: Keys under which the state dict may lie.

    Raises:
        CheckpointError: If the file is unreadable, holds more than tensors and plain values, or
            no tensors at all.
    """
    check_weights(path)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can make the reader fail in any way
        refused = _refused(path, error) if isinstance(error, UnpicklingError) else ""
        if refused:
            raise CheckpointError(
                f"{path} cannot be read without executing what it contains ({refused}); expected "
                "tensors and plain values alone: where you trust its author, these two lines "
                "of Python convert it\n" + CONVERT.format(path=path, to=path.with_name(WEIGHTS))
            ) from error
        raise CheckpointError(
            f"{path} is no readable weight file ({first_line(error)}); expected one of "
            f"{', '.join(SUFFIXES)}: download it again"
        ) from error
    for wrapper in wrappers:  # nested wrappers are unpacked too, in this order
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = dict(content) if isinstance(content, Mapping) else {}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors; expected a state dict")
    return tensors


def parts_of(index: Path) -> list[str]:
    """Names of the weight files that an index lists.

    Raises:
        CheckpointError: If it is no such index, or names files in other folders.
    """
    try:
        listed = parse_json(read_regular(index))["weight_map"].values()
        names = sorted(set(listed))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is no index of weights ({type(error).__name__}: {error}); expected an object "
            'with "weight_map": {name of a weight: name of a file}: download it again'
        ) from error
    foreign = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if foreign or not names:
        raise CheckpointError(
            f"{index} says that weights are in {foreign or 'no file'}; expected names of files "
            "beside it: download the checkpoint again, from where you trust it"
        )
    return names


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network; every name and shape must match.

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


def _refused(path: Path, error: Exception) -> str:
    """Types and functions that only unpickling would make; empty if none is named."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # a file of before torch 1.6: its own message names the first
        names = REFUSED.findall(str(error))
    return ", ".join(sorted(set(names)))


def first_line(error: BaseException) -> str:
    """First line of a message without terminal colours; two lines if the first ends in a colon."""
    lines = [line.strip() for line in COLOURS.sub("", str(error)).strip().splitlines()]
    if lines and lines[0].endswith(":"):
        return " ".join(lines[:2])
    return lines[0] if lines else type(error).__name__
