"""Corpora of any shape, and the laws that every protocol keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from features.corpus.adapter import Item

Splits = list[tuple[str, ...]]
SPLITS = ("train", "valid", "test")


def corpus(sizes: Sequence[int], *, genders: str = "") -> list[Item]:
    """Speakers s0, s1, ... with that many utterances; `genders` holds a letter for each."""
    return [
        Item(
            f"s{number}_{count}",
            "sad",
            f"s{number}",
            gender=genders[number] if genders else None,
        )
        for number, size in enumerate(sizes)
        for count in range(size)
    ]


@st.composite
def corpora(draw: st.DrawFn) -> list[Item]:
    """3 to 12 speakers, some of whom share dialogues, in any order."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=3, max_size=12))
    items = corpus(sizes, genders="".join(draw(st.sampled_from("fm")) for _ in sizes))
    dialogues = draw(st.lists(st.sampled_from([None, *"abcdefghij"]), min_size=1))
    spoken = [
        replace(item, dialogue=dialogues[number % len(dialogues)], session=f"{item.speaker[1:]}")
        for number, item in enumerate(items)
    ]
    return draw(st.permutations(spoken))


def held(items: Sequence[Item], splits: Splits, split: str, fold: int = 0) -> list[Item]:
    return [item for item, row in zip(items, splits, strict=True) if row[fold] == split]


def check_folds(items: Sequence[Item], splits: Splits, key: Callable[[Item], str | None]) -> None:
    """The laws of every protocol: nothing shared, nothing empty; and of folds: all tested once."""
    for fold in range(len(splits[0])):
        where = defaultdict(set)
        for item, row in zip(items, splits, strict=True):
            where[key(item)].add(row[fold])
        assert all(len(found) == 1 for found in where.values())
        assert {row[fold] for row in splits} == {"train", "valid", "test"}
    if len(splits[0]) > 1:
        assert all(row.count("test") == row.count("valid") == 1 for row in splits)
