"""Tensors of which each process holds a part (`pipeline.ranks_sharding`), and all of them again.

A tensor that is whole in each process stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def whole(value: Tensor) -> Tensor:
    """All of a tensor of which this process holds a part; every process has to ask for it."""
    full_tensor = getattr(value, "full_tensor", None)
    return value if full_tensor is None else full_tensor()


def part(value: Tensor, like: Tensor) -> Tensor:
    """Of all of a tensor the part that this process holds of another, cut in the same way."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def optimizer_parts(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The parts of an optimiser's state that this process holds.

    Args:
        optimizer: Over the parameters that decide how they are cut.
        tensors: All of it: `<number of the parameter>.<name>`, as `pipeline.resume` names them.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    found = {}
    for name, value in tensors.items():
        parameter = parameters[int(name.partition(".")[0])]
        of_parameter = value.shape == parameter.shape  # others are counts
        found[name] = part(value, parameter) if of_parameter else value
    return found
