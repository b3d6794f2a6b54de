"""One hidden state of a stacked cache, read as if it were a cache of its own: `inputs.layer`.

`layer: all` (or a list) stores hidden states side by side; a model that has `inputs: {layer:
{speech: 9}}` reads the columns of number 9 alone, so that a comparison of layers needs one cache
and no copies of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.backbone.layers import DEPTH
from features.cache.reader import CacheReader
from features.errors import ParamsError

LAYER = "layer"  # of provenance


def open_cache(
    folder: Path, slot: str, layers: Mapping[Any, int] | None, *, verify: bool = False
) -> CacheReader:
    """The cache of a slot; of a stack, the hidden state that `inputs.layer` names, if it does.

    Raises:
        CacheError: If the cache is missing or damaged.
        ParamsError: If it does not hold that state.
    """
    reader = CacheReader(folder, verify=verify)
    number = (layers or {}).get(slot)
    if number is None:
        return reader
    place = place_of(number, reader.provenance, slot, str(folder))
    return reader if place is None else reader.one_layer(place)


def place_of(number: int, provenance: Mapping[str, Any], slot: str, where: str) -> int | None:
    """Place of a hidden state in a stack, from 0; None if there is no stack, but that state alone.

    Args:
        number: As in an entry's `layer`; negative ones count from the network's end.
        provenance: Provenance of the features.
        slot: Name of the slot, for messages.
        where: Name of the features, for messages.

    Raises:
        ParamsError: If the features hold other states, or do not say which.
    """
    held, depth = provenance.get(LAYER), provenance.get(DEPTH)
    if held is None or not isinstance(depth, int):
        raise ParamsError(
            f"inputs.layer.{slot}: given {number}, and {where} holds no hidden states with "
            "numbers; expected features of an entry with `layer: all` or a list: take the slot out "
            "of `layer`"
        )
    numbers = list(held) if isinstance(held, list | tuple) else [held]
    wanted = number + depth + 1 if number < 0 else number
    if wanted not in numbers:
        raise ParamsError(
            f"inputs.layer.{slot}: given {number}, and {where} holds {numbers} of the network's "
            f"states 0 to {depth}; expected one of them, or another entry in the slot, such as one "
            "with `layer: all`"
        )
    return numbers.index(wanted) if len(numbers) > 1 else None
