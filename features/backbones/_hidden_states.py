"""Hidden states of transformers' networks, and batches in which no padding may stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from features.backbones._layers import Layers
from features.errors import CheckpointError


def hidden_states(network: Any, layers: Layers, *, ends: bool, **inputs: Any) -> Tensor:
    """The chosen hidden states of a batch side by side, `[B, T, L * D]`.

    The last one is read from `last_hidden_state`: the speech networks of transformers list it
    before their final norm.

    Args:
        network: A network of transformers.
        layers: Which states.
        ends: Whether the network ends after the deepest of them, since the rest was cut away.
        **inputs: What the network is called with.
    """
    if ends and len(layers.numbers) == 1:
        return network(**inputs).last_hidden_state  # type: ignore[no-any-return]
    output = network(**inputs, output_hidden_states=True)
    states = list(output.hidden_states)
    if ends:
        states = [*states[: layers.deepest], output.last_hidden_state]
    if len(states) <= layers.deepest:
        raise CheckpointError(
            f"{type(network).__name__} lists {len(states)} hidden states; expected "
            f"{layers.total + 1}: only `layer: -1` can be taken from it"
        )
    return layers.pick(states)


def in_equal_lengths(lengths: Tensor, compute: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Values `[B, T, D]` of a network that padding would reach, computed in groups without any.

    Args:
        lengths: `[B]`, of the inputs.
        compute: From the rows `[b]` of a group and their length to values `[b, t, D]`.
    """
    found: dict[int, Tensor] = {}
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero()[:, 0]
        found.update(zip(rows.tolist(), compute(rows, length), strict=True))
    values = [found[row] for row in range(len(lengths))]
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
