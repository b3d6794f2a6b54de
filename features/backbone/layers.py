"""Choice of a network's hidden states: one layer, a list of layers, or all.

They are numbered as in transformers' `hidden_states`: 0 is the input of the first layer, `n` the
output of the last one (after the final norm, if any); negative numbers count from the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from features.errors import CheckpointError, ParamsError
from features.ranges import Interval
from features.stream import StreamSpec

DEPTH = "depth"  # key of provenance: number of layers of the network
_Layer = Annotated[int, Interval(ge=-1000, le=1000)]
LayerChoice = _Layer | list[_Layer] | Literal["all"]


@dataclass(frozen=True)
class Layers:
    """Hidden states that a backbone returns.

    Attributes:
        numbers: Numbers counted from 0, in stored order.
        total: Number of layers of the network.
    """

    numbers: tuple[int, ...]
    total: int

    @property
    def deepest(self) -> int:
        """Last layer that has to be computed."""
        return max(self.numbers)

    @property
    def whole(self) -> bool:
        """Whether the last layer, and so the final norm, is among them."""
        return self.deepest == self.total

    def only(self, states: Sequence[Tensor] | Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The chosen ones of a network's states, by number."""
        return {number: states[number] for number in self.numbers}

    def pick(self, states: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor:
        """Concatenate the chosen ones of `[B, T, D]` states, by number, to `[B, T, L * D]`."""
        chosen = [states[number] for number in self.numbers]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)

    def spec(self, width: int, *, hop_seconds: float | None = None) -> StreamSpec:
        """Spec of these layers concatenated, each `width` wide."""
        count = len(self.numbers)
        return StreamSpec(dim=count * width, hop_seconds=hop_seconds, layers=count)

    def provenance(self) -> dict[str, Any]:
        """The numbers (one, or a list), and the depth that negative ones count from."""
        numbers = self.numbers[0] if len(self.numbers) == 1 else list(self.numbers)
        return {"layer": numbers, DEPTH: self.total}


def choose_layers(choice: LayerChoice, total: int, checkpoint: str, *, first: int = 0) -> Layers:
    """Resolve the `layer` of an entry for a network with `total` layers.

    Args:
        choice: Value of `layer` in params.yaml.
        total: Number of layers.
        checkpoint: Name of the checkpoint, for messages.
        first: Lowest number; 1 if the network does not return the input of the first layer.

    Raises:
        CheckpointError: If the network has no layers.
        ParamsError: If a number is out of range or named twice, or the list is empty.
    """
    if total < 1:
        raise CheckpointError(f"{checkpoint!r} has {total} layers; expected a network with some")
    wanted = list(range(first, total + 1)) if choice == "all" else choice
    numbers = [wanted] if isinstance(wanted, int) else list(wanted)
    # Numbers run from 0 to `total`, so that -1 is `total`.
    resolved = tuple(number + total + 1 if number < 0 else number for number in numbers)
    for number, found in zip(numbers, resolved, strict=True):
        if not first <= found <= total:
            raise ParamsError(
                f"layer {number} of {checkpoint!r}; expected {first} to {total} or "
                f"{first - total - 1} to -1 (it has {total} layers; 0 is their input"
                f"{', which is not given' * first})"
            )
    if not resolved or len(set(resolved)) < len(resolved):
        raise ParamsError(
            f"layer {choice!r} of {checkpoint!r}; expected a number, or a list of different ones"
        )
    return Layers(resolved, total)


def keep_first(blocks: nn.ModuleList, count: int) -> nn.ModuleList:
    """The first `count` blocks of a network, so that later ones are not computed."""
    return nn.ModuleList(list(blocks)[:count])


def freeze(network: Any) -> None:
    """Switch gradients off; training switches them on for the parts that it tunes."""
    for parameter in network.parameters():
        parameter.requires_grad_(requires_grad=False)
