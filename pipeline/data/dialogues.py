"""Groups utterances into dialogues and stacks their vectors as turns.

A dialogue consists of the labels that the caller passes, which are those of one split: turns of
another split are no context, and neither are turns that a slot has no features of. So predictions
on a split depend on that split alone, even where `allow_leak` lets a dialogue cross two of them.

Shapes: B dialogues, N turns, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from features.corpus.manifest import Label
from features.stream import Stream
from pipeline.model.batch import UNSCORED


def places_by_dialogue(labels: Sequence[Label]) -> list[list[int]]:
    """Indices into `labels`, one list for each dialogue, in order of turn.

    Dialogues are in the order of their first label. Turns without a number keep the order of
    `labels`, and so do equal ones. A label without a dialogue is a dialogue of one turn.

    >>> rows = [
    ...     Label("a", "sad", "s", "d", 1),
    ...     Label("b", "sad", "s"),
    ...     Label("c", "sad", "s", "d", 0),
    ... ]
    >>> places_by_dialogue(rows)
    [[2, 0], [1]]
    """
    found: dict[str | int, list[int]] = {}
    for place, label in enumerate(labels):
        # A place is an integer, which no dialogue's name equals.
        found.setdefault(place if label.dialogue is None else label.dialogue, []).append(place)
    return [_by_turn(labels, places) for places in found.values()]


def turns_mask(lengths: Sequence[int]) -> Tensor:
    """`[B, N]` bool: which turns exist in dialogues of these lengths.

    >>> turns_mask([2, 1]).tolist()
    [[True, True], [True, False]]
    """
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def stack_turns(pooled: Stream, mask: Tensor) -> Stream:
    """Vectors of all turns, `[sum of N_i, 1, D]`, as dialogues `[B, N, D]` with zeros at padding.

    Args:
        pooled: One vector for each turn, dialogue after dialogue; or one bin, `[sum of N_i, 1]`.
        mask: `[B, N]` bool, from `turns_mask`.
    """
    values = pooled.values.new_zeros(*mask.shape, *pooled.values.shape[2:])
    # A mask selects row by row, which is the order of `pooled`.
    values[mask] = pooled.values[:, 0]
    return Stream(values, mask)


def stack_labels(numbers: Sequence[int], mask: Tensor) -> Tensor:
    """Class numbers of all turns as `[B, N]` int64, -1 at padding."""
    labels = torch.full(mask.shape, UNSCORED)
    labels[mask] = torch.tensor(numbers)
    return labels


def _by_turn(labels: Sequence[Label], places: list[int]) -> list[int]:
    turns = {place: labels[place].turn for place in places}
    if None in turns.values():
        return places
    # No turn is None here: `or 0` is for the type checker.
    return sorted(places, key=lambda place: turns[place] or 0)
