"""The parts of a pretrained network: front end, what else lies below the blocks, blocks, top.

They are found by structure, since each family names them in its own way. A block is an element of
the outermost lists of like modules that have linear layers (transformer layers, Conformer blocks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

# The convolutions that turn samples, or spectra, into frames.
FRONT_ENDS = (
    *("feature_extractor", "conv1", "conv2", "patch_embed", "frontend"),
    "modality_encoders.AUDIO.local_encoder",
)
TOP_NORMS = ("layer_norm", "norm", "encoder.layer_norm")


@dataclass(frozen=True)
class Anatomy:
    """Names of a network's modules by part; what is in none of them lies below the blocks.

    Attributes:
        front: The convolutional front end; empty where there is none, as in text encoders.
        blocks: From below.
        top: What follows the last block.
    """

    front: tuple[str, ...]
    blocks: tuple[str, ...]
    top: tuple[str, ...]

    def in_front(self, name: str) -> bool:
        """Whether a module or parameter belongs to the front end."""
        return _within(name, self.front) is not None

    def depth(self, name: str) -> int:
        """0 below the blocks, i in the i-th; what is on top is as deep as the last block."""
        block = _within(name, self.blocks)
        if block is not None:
            return block + 1
        return len(self.blocks) if _within(name, self.top) is not None else 0


def anatomy(network: nn.Module) -> Anatomy:
    """The parts of a network."""
    names = {name for name, _ in network.named_modules()}
    top = tuple(name for name in TOP_NORMS if name in names and not _precedes(network, name))
    return Anatomy(
        tuple(name for name in FRONT_ENDS if name in names), tuple(_blocks(network)), top
    )


def units(network: nn.Module, parts: Anatomy) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules, by name, of which none reaches from one part into another."""
    yield from _units(network, "", (*parts.front, *parts.blocks, *parts.top))


def _units(module: nn.Module, name: str, parts: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if any(part.startswith(f"{full}.") for part in parts):
            yield from _units(child, full, parts)
        else:
            yield full, child


def _blocks(network: nn.Module) -> list[str]:
    found: list[str] = []
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
    """Whether a norm of an encoder comes ahead of its blocks, as in post-norm speech networks."""
    config = getattr(network, "config", None)
    return name.startswith("encoder.") and not getattr(config, "do_stable_layer_norm", False)


def _within(name: str, parts: Sequence[str]) -> int | None:
    """Which of some modules a name lies in."""
    for number, part in enumerate(parts):
        if name == part or name.startswith(f"{part}."):
            return number
    return None
