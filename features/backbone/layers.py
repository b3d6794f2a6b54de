"""Which hidden states of a network are kept: one layer, a list of them, or all.

Numbers are those of transformers' `hidden_states`: 0 is the input of the first layer, `n` the
output of the last one (after the final norm, where there is one); negative ones count from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from features.errors import CheckpointError, ParamsError
from features.ranges import Interval
from features.stream import StreamSpec

DEPTH = "depth"  # key of provenance: number of layers that the network has
_Layer = Annotated[int, Interval(ge=-1000, le=1000)]
LayerChoice = _Layer | list[_Layer] | Literal["all"]


@dataclass(frozen=True)
class Layers:
    """The hidden states that a backbone yields.

    Attributes:
        numbers: Counted from 0, in the order in which they are stored.
        total: Number of layers that the network has.
    """

    numbers: tuple[int, ...]
    total: int

    @property
    def deepest(self) -> int:
        """The layer after which the network may stop."""
        return max(self.numbers)

    @property
    def whole(self) -> bool:
        """Whether the last layer, and with it the final norm, is among them."""
        return self.deepest == self.total

    def pick(self, states: Sequence[Tensor]) -> Tensor:
        """The chosen ones of `[B, T, D]` states 0..deepest side by side, `[B, T, L * D]`."""
        chosen = [states[number] for number in self.numbers]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)

    def spec(self, width: int, *, hop_seconds: float | None = None) -> StreamSpec:
        """What a stack of these layers, each `width` wide, is stored as."""
        count = len(self.numbers)
        return StreamSpec(dim=count * width, hop_seconds=hop_seconds, layers=count)

    def provenance(self) -> dict[str, Any]:
        """The numbers, for the record: one, or a list; and what negative ones count from."""
        numbers = self.numbers[0] if len(self.numbers) == 1 else list(self.numbers)
        return {"layer": numbers, DEPTH: self.total}


def choose_layers(choice: LayerChoice, total: int, checkpoint: str, *, first: int = 0) -> Layers:
    """The layers that `choice` names of a network with `total` of them.

    Args:
        choice: As in params.yaml.
        total: Number of layers.
        checkpoint: For messages.
        first: The lowest number that there is: 1 where the input of the first layer is not given.

    Raises:
        CheckpointError: If there are none.
        ParamsError: If a number is out of range or named twice, or the list is empty.
    """
    if total < 1:
        raise CheckpointError(f"{checkpoint!r} has {total} layers; expected a network with some")
    wanted = list(range(first, total + 1)) if choice == "all" else choice
    numbers = [wanted] if isinstance(wanted, int) else list(wanted)
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
    """The first `count` blocks of a network: what lies above is not computed."""
    return nn.ModuleList(list(blocks)[:count])


def freeze(network: Any) -> None:
    """No gradients: extraction needs none, and training switches them on for what it tunes."""
    for parameter in network.parameters():
        parameter.requires_grad_(requires_grad=False)
