"""Selects what of a pretrained network is trained: all, some of its parts, or low-rank adapters.

A frozen part stays in eval mode: its dropout is off, and its output does not change. Adapters are
those of arXiv 2106.09685, from the library `peft`.

A network is seen as a convolutional front end, blocks (layers of the same class with at least two
linear layers each), and what is below and above the blocks.
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

from features.audio import (  # noqa: F401  peft imports transformers, and that torchaudio
    torchaudio_cpu,
)
from features.errors import ParamsError
from pipeline.params.tuning import LoraParams, SlotTuning

# The convolutions that turn samples, or spectra, into frames.
FRONT_ENDS = (
    *("feature_extractor", "conv1", "conv2", "patch_embed", "frontend"),
    "modality_encoders.AUDIO.local_encoder",
)
TOP_NORMS = ("layer_norm", "norm", "encoder.layer_norm")


@dataclass(frozen=True)
class Anatomy:
    """Names of a network's modules by part; modules in none of them lie below the blocks.

    Attributes:
        front: The convolutional front end; empty in text encoders.
        blocks: The blocks, lowest first.
        top: The norm after the last block.
    """

    front: tuple[str, ...]
    blocks: tuple[str, ...]
    top: tuple[str, ...]

    def in_front(self, name: str) -> bool:
        """Whether a module or parameter is part of the front end."""
        return _within(name, self.front) is not None

    def depth(self, name: str) -> int:
        """0 below the blocks, i in the i-th; the top has the depth of the last block."""
        block = _within(name, self.blocks)
        if block is not None:
            return block + 1
        return len(self.blocks) if _within(name, self.top) is not None else 0


def anatomy(network: nn.Module) -> Anatomy:
    """Find the parts of a network."""
    names = {name for name, _ in network.named_modules()}
    top = tuple(name for name in TOP_NORMS if name in names and not _precedes(network, name))
    return Anatomy(
        tuple(name for name in FRONT_ENDS if name in names), tuple(_blocks(network)), top
    )


def units(module: nn.Module, parts: Sequence[str], name: str = "") -> Iterator[nn.Module]:
    """The largest modules that each lie within one part."""
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if any(part.startswith(f"{full}.") for part in parts):  # it reaches beyond that part
            yield from units(child, parts, full)
        else:
            yield child


def _blocks(network: nn.Module) -> list[str]:
    found: list[str] = []
    # Outer modules come first, so that a list within a block is none of its own.
    for name, module in network.named_modules():
        if _within(name, found) is None and isinstance(module, nn.ModuleList | nn.Sequential):
            children = list(module.named_children())
            kinds = {type(child) for _, child in children}
            if len(kinds) == 1 and all(_linears(child) >= 2 for _, child in children):
                found += [f"{name}.{child_name}" for child_name, _ in children]
    return found


def _linears(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Linear) for part in module.modules())


def _precedes(network: nn.Module, name: str) -> bool:
    """Whether a norm of an encoder comes before its blocks, as in post-norm speech networks."""
    config = getattr(network, "config", None)
    return name.startswith("encoder.") and not getattr(config, "do_stable_layer_norm", False)


def _within(name: str, parts: Sequence[str]) -> int | None:
    """Number of the module that a name lies in; None: in none of them."""
    for number, part in enumerate(parts):
        if name == part or name.startswith(f"{part}."):
            return number
    return None


FIXED = ("embed_positions.weight",)  # Whisper's sinusoids, which are not trained either
# Names of query and value projections, the most specific first.
ATTENTION = (
    *(("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("linear_q", "linear_v")),
    *(("q", "v"), ("qkv",)),
)
# WavLM's attention, which has this method, passes the weights of its linear layers to a function
# and never calls the layers, so that an adapter around them would have no effect.
BY_WEIGHTS = "torch_multi_head_self_attention"


@dataclass(frozen=True)
class Tuned:
    """A network whose trained parameters have gradients.

    Attributes:
        network: Network of a backbone.
        parts: Its parts.
        how: Settings of its slot.
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
        """Put the frozen parts back into eval mode, after `train` of the whole."""
        for module in self.resting:
            module.eval()

    def merge(self) -> None:
        """Merge the adapters into the weights, which leaves the original modules."""
        if self.adapters is not None:
            self.adapters.merge_and_unload()

    def scales(self, lr: float) -> Iterator[tuple[float, nn.Parameter]]:
        """Trained parameters, each with its learning rate as a multiple of the protocol's `lr`."""
        slot = (self.how.lr or lr) / lr  # the schedule multiplies the protocol's rate
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                below = len(self.parts.blocks) - self.parts.depth(name)
                yield slot * self.how.layer_decay**below, parameter


def tune(network: nn.Module, how: SlotTuning, lora: LoraParams, slot: str) -> Tuned:
    """Select what is trained of a network, and freeze the rest.

    Args:
        network: Network of a backbone; changed in place.
        how: Settings of its slot.
        lora: Settings of adapters.
        slot: Name of the slot, for messages.

    Raises:
        ParamsError: If more blocks are to be frozen than there are, or no layer can get an adapter.
    """
    parts = anatomy(network)
    if how.freeze_layers > len(parts.blocks):
        raise ParamsError(
            f"e2e.slots.{slot}.freeze_layers: given {how.freeze_layers}; expected at most "
            f"{len(parts.blocks)}, the blocks of this {type(network).__name__}"
        )
    network.requires_grad_(requires_grad=False)  # adapters are added with gradients
    adapters = None
    if how.tune == "lora":
        adapters = _adapted(network, parts, how, lora, slot)
    elif how.tune == "full":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(_trained(name, parts, how))
    return Tuned(network, parts, how, adapters, tuple(_resting(network, parts)))


def checkpoint_blocks(tuned: Tuned) -> None:
    """Switch gradient checkpointing on: recompute each block in the backward pass."""
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
    """Modules that stay in eval mode: those without a trained parameter, and batch norms."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        yield network
        return
    # Batch norms keep the statistics of pretraining; those of a batch would include padding.
    yield from (module for module in network.modules() if isinstance(module, _BatchNorm))
    below = [
        parameter.requires_grad
        for name, parameter in network.named_parameters()
        if parts.depth(name) == 0 and not parts.in_front(name)
    ]
    for module in units(network, (*parts.front, *parts.blocks, *parts.top)):
        # A module without parameters, such as a dropout, counts as one below the blocks.
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
    """Names of linear layers that get an adapter: `wanted`, or queries and values, or else all."""
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
