"""What of a pretrained network is trained: all, some of its parts, or adapters beside them.

A part that is frozen stays in eval mode: its dropout is off and its output is what it was. The
source of low-rank adapters is arXiv 2106.09685, by way of the library `peft`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from features import torchaudio_cpu  # noqa: F401  peft imports transformers, and that torchaudio
from features.errors import ParamsError
from pipeline.anatomy import Anatomy, anatomy, units
from pipeline.tune_params import LoraParams, SlotTuning

FIXED = ("embed_positions.weight",)  # Whisper's sinusoids, which are not trained either
ATTENTION = (
    *(("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("linear_q", "linear_v")),
    *(("q", "v"), ("qkv",)),
)
# WavLM's attention hands the weights of its layers to a function and never calls the layers, so
# that an adapter there would do nothing.
BY_WEIGHTS = "torch_multi_head_self_attention"


@dataclass(frozen=True)
class Tuned:
    """A network with what is trained of it switched on.

    Attributes:
        network: Of a backbone.
        parts: Its anatomy.
        how: What was asked for.
        adapters: peft's model around the network, or None.
        resting: Modules that stay in eval mode.
    """

    network: nn.Module
    parts: Anatomy
    how: SlotTuning
    adapters: Any
    resting: tuple[nn.Module, ...]

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return any(parameter.requires_grad for parameter in self.network.parameters())

    def rest(self) -> None:
        """Put the frozen parts into eval mode again, after `train` of the whole."""
        for module in self.resting:
            module.eval()

    def merge(self) -> None:
        """Add the adapters to the weights: the network is what it was before, but trained."""
        if self.adapters is not None:
            self.adapters.merge_and_unload()

    def scales(self, lr: float) -> Iterator[tuple[float, nn.Parameter]]:
        """Each trained parameter, and its learning rate as a multiple of the protocol's `lr`."""
        slot = (self.how.lr or lr) / lr
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                below = len(self.parts.blocks) - self.parts.depth(name)
                yield slot * self.how.layer_decay**below, parameter


def tune(network: nn.Module, how: SlotTuning, lora: LoraParams, slot: str) -> Tuned:
    """Switch on what is to be trained of a network; all else is frozen.

    Args:
        network: Of a backbone; changed in place.
        how: The settings of its slot.
        lora: The settings of adapters.
        slot: For messages.

    Raises:
        ParamsError: If there are fewer blocks than are to be frozen, or no place for adapters.
    """
    parts = anatomy(network)
    if how.freeze_layers > len(parts.blocks):
        raise ParamsError(
            f"e2e.slots.{slot}.freeze_layers: given {how.freeze_layers}; expected at most "
            f"{len(parts.blocks)}, the blocks of this {type(network).__name__}"
        )
    network.requires_grad_(requires_grad=False)
    adapters = None
    if how.tune == "lora":
        adapters = _adapted(network, parts, how, lora, slot)
    elif how.tune == "full":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(_trained(name, parts, how))
    return Tuned(network, parts, how, adapters, tuple(_resting(network, parts)))


def checkpoint_blocks(tuned: Tuned) -> None:
    """Keep the inputs of the trained blocks alone, and compute the blocks again backwards."""
    modules = dict(tuned.network.named_modules())
    for name in tuned.parts.blocks:
        block = modules[name]
        block.forward = partial(_again, block, block.forward)


def _again(block: nn.Module, forward: Any, *args: Any, **options: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **options)
    return forward(*args, **options)


def _trained(name: str, parts: Anatomy, how: SlotTuning) -> bool:
    if name.endswith(FIXED) or (how.freeze_front_end and parts.in_front(name)):
        return False
    return how.freeze_layers == 0 or parts.depth(name) > how.freeze_layers


def _resting(network: nn.Module, parts: Anatomy) -> Iterator[nn.Module]:
    """Parts without a trained parameter; what has none at all belongs to those below the blocks.

    Batch norms rest too: their statistics are the pretraining's, and would else take in padding.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        yield network
        return
    yield from (module for module in network.modules() if isinstance(module, _BatchNorm))
    below = [
        parameter.requires_grad
        for name, parameter in network.named_parameters()
        if parts.depth(name) == 0 and not parts.in_front(name)
    ]
    for _, module in units(network, parts):
        own = [parameter.requires_grad for parameter in module.parameters()]
        if not any(own or below):
            yield module


def _adapted(
    network: nn.Module, parts: Anatomy, how: SlotTuning, lora: LoraParams, slot: str
) -> Any:
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=_targets(network, parts, how, lora.targets, slot),
    )
    return LoraModel(network, config, "default")


def _targets(
    network: nn.Module,
    parts: Anatomy,
    how: SlotTuning,
    wanted: Sequence[str] | None,
    slot: str,
) -> list[str]:
    """Names of the linear layers that get an adapter."""
    modules = dict(network.named_modules())
    passed_by = [name for name, module in modules.items() if hasattr(module, BY_WEIGHTS)]
    usable = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear)
        and parts.depth(name) > how.freeze_layers
        and not any(name.startswith(f"{outer}.") for outer in passed_by)
    ]
    choices = ATTENTION if wanted is None else (tuple(wanted),)
    for ends in choices:
        found = [n for n in usable if any(n == e or n.endswith(f".{e}") for e in ends)]
        if found:
            return found
    if wanted is None and usable:
        return usable
    ends = tuple(sorted({name.rpartition(".")[2] for name in usable}))
    raise ParamsError(
        f"e2e.lora.targets: given {wanted} for the {slot} slot, a {type(network).__name__}; "
        f"expected ends of names of linear layers in blocks that are not frozen: {', '.join(ends)}"
    )
