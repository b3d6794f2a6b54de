"""Networks of which each process holds a part: torch's FSDP2, with the settings of `accelerate`.

Parameters, gradients and the optimiser's state are cut in as many parts as there are processes. A
block's parameters are put together while it computes, all others for a forward and backward pass.
Gradients are summed over the processes, as `Ranks.add_up` does where each holds everything; so the
loss curve is the same.

All processes meet in each block that is cut by itself. So none of them can cut a batch that does
not fit, no layer may be left out at random, and a backbone that calls its network as often as there
are lengths in a batch keeps its blocks together: its parameters are put together once a batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from features.backbones._backbone import Backbone, innermost
from features.errors import ParamsError
from pipeline.end_to_end import EndToEnd
from pipeline.ranks import Ranks

# Attributes of backbones, each of which says so: that padding is masked rather than avoided.
ONE_PASS = ("one_pass", "maskable", "masked")


def spread(model: EndToEnd, ranks: Ranks) -> None:
    """Make one model of those that all processes have made, cut in parts if that is asked for.

    Args:
        model: With its weights, on its device; changed in place.
        ranks: Of this process.

    Raises:
        ParamsError: If shares of a batch cannot give what the batch gives, or cannot be computed.
    """
    if ranks.count == 1:
        return
    _check(model, ranks)
    ranks.level(model)
    if ranks.sharded:
        _shard(model, ranks)


def _check(model: EndToEnd, ranks: Ranks) -> None:
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise ParamsError(
                f"{ranks.count} processes: the batch norm {name} of this model has the statistics "
                "of a batch, and each process has a share of it only; expected one process: leave "
                "out the launcher (HERONRY_E2E_LAUNCH), or take a model without batch norm"
            )
    if ranks.sharded and model.scales_loss:
        raise ParamsError(
            "e2e.precision: given float16 with --use_fsdp, where one process would not see that a "
            "gradient of another overflows; expected bfloat16 or float32, or --multi_gpu"
        )


def _shard(model: EndToEnd, ranks: Ranks) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin  # type: ignore[import-untyped]
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    again = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.count,))
    for slot, tuned in model.tuned.items():
        modules = dict(tuned.network.named_modules())
        for name in tuned.parts.blocks if hold_to_one_pass(model.backbones[slot]) else ():
            fully_shard(modules[name], mesh=mesh, reshard_after_forward=again)
        _leave_nothing_out(tuned.network)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(enable=True)


def hold_to_one_pass(backbone: Backbone) -> bool:
    """Make a backbone call its network once a batch, whatever the batch; whether it can.

    On a CPU some would compute clips of similar lengths together, which the processes' shares of a
    batch have each in their own way.
    """
    inner: Any = innermost(backbone)
    if not any(getattr(inner, name, False) for name in ONE_PASS):
        return False
    inner.one_pass = True
    return True


def _leave_nothing_out(network: nn.Module) -> None:
    """A process that left a layer out would not meet the others there (LayerDrop, of Whisper)."""
    for module in network.modules():
        if isinstance(getattr(module, "layerdrop", None), float):
            module.layerdrop = 0.0  # type: ignore[assignment]
