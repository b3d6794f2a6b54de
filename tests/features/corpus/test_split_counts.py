"""Counts of each fold's splits, against counting one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Item
from features.corpus.split_counts import (
    count_classes,
    count_genders,
    count_speakers,
    splits_sha256,
    sum_seconds,
)

ITEMS = [
    Item("1", "sad", "anna", gender="f"),
    Item("2", "sad", "anna", gender="f"),
    Item("3", "sad", "bert", gender="m"),
    Item("4", "happy", "cleo"),
]
SPLITS = [("train", "test"), ("train", "valid"), ("test", "train"), ("valid", "unused")]


def test_speakers_and_classes() -> None:
    assert count_speakers(ITEMS, SPLITS) == [
        {"train": 1, "valid": 1, "test": 1},
        {"train": 1, "valid": 1, "test": 1, "unused": 1},
    ]
    assert count_classes(ITEMS, SPLITS, ["sad", "happy"])[0] == {
        "train": {"sad": 2, "happy": 0},
        "valid": {"sad": 0, "happy": 1},
        "test": {"sad": 1, "happy": 0},
    }


def test_genders_count_speakers_and_name_all() -> None:
    assert count_genders(ITEMS, SPLITS)[0] == {
        "train": {"f": 1, "m": 0, "unknown": 0},
        "valid": {"f": 0, "m": 0, "unknown": 1},
        "test": {"f": 0, "m": 1, "unknown": 0},
    }


def test_seconds_of_what_has_audio() -> None:
    assert sum_seconds(ITEMS, SPLITS, {"1": 1.5, "2": 2.0, "4": 0.25})[0] == {
        "train": 3.5,
        "valid": 0.25,
        "test": 0.0,
    }


@given(st.permutations(list(zip(ITEMS, SPLITS, strict=True))))
def test_the_hash_of_the_splits_knows_no_order(rows: list[tuple[Item, tuple[str, ...]]]) -> None:
    items, splits = [item for item, _ in rows], [row for _, row in rows]
    same = splits_sha256(ITEMS, SPLITS)
    assert splits_sha256(items, splits) == same
    other = [*splits[:-1], tuple("train" if s != "train" else "test" for s in splits[-1])]
    assert splits_sha256(items, other) != same
