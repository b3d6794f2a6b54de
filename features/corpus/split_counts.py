"""What is in the splits of each fold: utterances, speakers, genders and seconds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from features.corpus.adapter import Item
from features.corpus.manifest import SPLITS, Label

Row = TypeVar("Row", Item, Label, Item | Label)

UNKNOWN = "unknown"  # gender that the corpus does not state


def count_classes(
    items: Sequence[Item | Label], splits: Sequence[Sequence[str]], classes: Sequence[str]
) -> list[dict[str, dict[str, int]]]:
    """Utterances by split and class, in each fold; every class is named, zeros included."""
    return [
        {
            split: dict.fromkeys(classes, 0) | Counter(str(item.label) for item in held)
            for split, held in fold.items()
        }
        for fold in _folds(items, splits)
    ]


def count_speakers(items: Sequence[Item], splits: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Speakers by split, in each fold."""
    return [
        {split: len({item.speaker for item in held}) for split, held in fold.items()}
        for fold in _folds(items, splits)
    ]


def count_genders(
    items: Sequence[Item], splits: Sequence[Sequence[str]]
) -> list[dict[str, dict[str, int]]]:
    """Speakers by split and gender, in each fold; every gender of the corpus is named."""
    gender = {item.speaker: item.gender or UNKNOWN for item in items}
    names = sorted(set(gender.values()))
    return [
        {
            split: dict.fromkeys(names, 0)
            | Counter(gender[speaker] for speaker in {item.speaker for item in held})
            for split, held in fold.items()
        }
        for fold in _folds(items, splits)
    ]


def sum_seconds(
    items: Sequence[Item], splits: Sequence[Sequence[str]], seconds: Mapping[str, float]
) -> list[dict[str, float]]:
    """Seconds of audio by split, in each fold.

    Args:
        items: Labelled utterances.
        splits: For each of them, one split per fold.
        seconds: Duration by id; what has no audio is not in here.
    """
    return [
        {
            split: round(sum(seconds.get(item.id, 0.0) for item in held), 3)
            for split, held in fold.items()
        }
        for fold in _folds(items, splits)
    ]


def splits_sha256(items: Sequence[Item | Label], splits: Sequence[Sequence[str]]) -> str:
    """Identity of the splits: SHA-256 of a line `id<TAB>split,split,...` per utterance, sorted."""
    lines = sorted(f"{item.id}\t{','.join(row)}\n" for item, row in zip(items, splits, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _folds(items: Sequence[Row], splits: Sequence[Sequence[str]]) -> Iterator[dict[str, list[Row]]]:
    for column in zip(*splits, strict=True):
        held: dict[str, list[Row]] = {
            split: [] for split in SPLITS if split != "unused" or split in column
        }
        for item, split in zip(items, column, strict=True):
            held[split].append(item)
        yield held
