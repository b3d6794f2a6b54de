"""Siblings: entries of one network that differ by layer, pooling or stored precision alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from features.backbone.base import Backbone, innermost, module_of
from features.backbone.entry import BackboneEntry
from features.backbone.layers import LayerChoice, Layers
from features.backbone.windows import windowed_in
from features.errors import ParamsError

LAYER = "layer"  # option in which siblings may differ
COMMON = ("kind", "compute_dtype", "version")  # settings in which they may not


def settings_apart(one: BackboneEntry, other: BackboneEntry) -> dict[str, tuple[Any, Any]]:
    """Settings in which two entries differ and siblings may not, by name; empty for siblings."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in COMMON}
    if one.kind == other.kind:
        left, right = (
            {**entry.keywords(), "long: window": entry.windows} for entry in (one, other)
        )
        names = sorted({*left, *right} - {LAYER})
        pairs |= {name: (left.get(name), right.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def sibling_of_layer(entry: BackboneEntry, number: int, where: str) -> BackboneEntry:
    """The entry that computes one of the hidden states that an entry stores, and no others.

    Args:
        entry: Entry with several layers, or that one alone.
        number: As in `layer` of an entry.
        where: Name of the setting that names the state, for messages.

    Raises:
        ParamsError: If its kind has no layers, or it stores others.
    """
    chosen: LayerChoice | None = entry.keywords().get(LAYER)
    listed = [chosen] if isinstance(chosen, int) else chosen
    # Which number -1 is, only the weights say.
    known = isinstance(listed, list) and all((each < 0) == (number < 0) for each in listed)
    if listed is None or (known and number not in listed):
        has = "no layers" if chosen is None else f"`layer: {chosen}`"
        raise ParamsError(
            f"{where}: given {number} for backbone {entry.name!r}, which has {has}; expected one "
            f"with `layer: all`, or with a list in which {number} is"
        )
    return replace(entry, options={**entry.options, LAYER: number})


def not_computed_with(one: Backbone, other: Backbone) -> str | None:
    """Why the backbones of two siblings cannot be computed in one pass; None: they can."""
    pair = windowed_in(one), windowed_in(other)
    grids = [None if windowed is None else windowed.grid for windowed in pair]
    # A published mean (CED's) has windows that begin between frames.
    return None if grids[0] == grids[1] else "its windows begin elsewhere"


def layers_of(backbones: Sequence[Backbone]) -> Layers | None:
    """Hidden states that some backbones of one network take; None of a network without layers."""
    found = [layers for each in backbones if (layers := _layers(each)) is not None]
    if not found:
        return None
    numbers = {number for layers in found for number in layers.numbers}
    return Layers(tuple(sorted(numbers)), found[0].total)


def deepest(backbones: Sequence[Backbone]) -> int:
    """Index of the backbone whose network computes the states of all."""
    depths = [-1 if (layers := _layers(each)) is None else layers.deepest for each in backbones]
    return depths.index(max(depths))


def share_weights(backbone: Backbone, known: dict[str, nn.Parameter]) -> bool:
    """Put known weights in place of a network's own, if those that both have are equal.

    Args:
        backbone: Backbone; one without a network is left as it is.
        known: Weights by name; those that were not known are added.

    Returns:
        Whether they are equal; if not, nothing has changed.
    """
    network = module_of(backbone)
    if network is None:
        return True
    own = dict(network.named_parameters(remove_duplicate=False))
    if any(name in known and not torch.equal(known[name], own[name]) for name in own):
        return False
    for path in own:
        place, _, name = path.rpartition(".")
        network.get_submodule(place)._parameters[name] = known.setdefault(path, own[path])
    return True


def _layers(backbone: Backbone) -> Layers | None:
    layers = getattr(innermost(backbone), "layers", None)
    return layers if isinstance(layers, Layers) else None
