"""Count utterances, speakers, genders and seconds in the splits of each fold."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from features.corpus.adapter import Item
from features.corpus.manifest import SPLITS, USED, Label

Row = TypeVar("Row", Item, Label, Item | Label)
Counted = TypeVar("Counted")

UNKNOWN = "unknown"  # gender that the corpus does not state


def count_classes(
    items: Sequence[Item | Label], splits: Sequence[Sequence[str]], classes: Sequence[str]
) -> list[dict[str, dict[str, int]]]:
    """Utterances by split and class, in each fold; every class is named, zeros included."""
    none = dict.fromkeys(classes, 0)
    return _by_split(
        items,
        splits,
        lambda held: none | Counter(item.label for item in held if item.label is not None),
    )


def count_speakers(items: Sequence[Item], splits: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Speakers by split, in each fold."""
    return _by_split(items, splits, lambda held: len({item.speaker for item in held}))


def count_genders(
    items: Sequence[Item], splits: Sequence[Sequence[str]]
) -> list[dict[str, dict[str, int]]]:
    """Speakers by split and gender, in each fold; every gender of the corpus is named."""
    gender = {item.speaker: item.gender or UNKNOWN for item in items}
    none = dict.fromkeys(sorted(set(gender.values())), 0)
    return _by_split(
        items,
        splits,
        lambda held: none | Counter(gender[speaker] for speaker in {i.speaker for i in held}),
    )


def sum_seconds(
    items: Sequence[Item], splits: Sequence[Sequence[str]], seconds: Mapping[str, float]
) -> list[dict[str, float]]:
    """Seconds of audio by split, in each fold.

    Args:
        items: Labelled utterances.
        splits: For each of them, one split per fold.
        seconds: Duration by id, of the utterances that have audio.
    """
    return _by_split(
        items, splits, lambda held: round(sum(seconds.get(item.id, 0.0) for item in held), 3)
    )


def splits_sha256(items: Sequence[Item | Label], splits: Sequence[Sequence[str]]) -> str:
    """Identity of the splits: SHA-256 of a line `id<TAB>split,split,...` per utterance, sorted."""
    lines = sorted(f"{item.id}\t{','.join(row)}\n" for item, row in zip(items, splits, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _by_split(
    items: Sequence[Row], splits: Sequence[Sequence[str]], count: Callable[[list[Row]], Counted]
) -> list[dict[str, Counted]]:
    """Count the items of each split, in each fold; splits without a task only where they occur."""
    folds = []
    for column in zip(*splits, strict=True):
        held: dict[str, list[Row]] = {
            split: [] for split in SPLITS if split in USED or split in column
        }
        for item, split in zip(items, column, strict=True):
            held[split].append(item)
        folds.append({split: count(rows) for split, rows in held.items()})
    return folds
