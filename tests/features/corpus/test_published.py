"""Counts of a copy against published ones, and reasons grouped by what they have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Item, Published
from features.corpus.card import count_differences
from features.files.reasons import count_reasons


def items_of(**counts: int) -> list[Item]:
    return [
        Item(f"{label}{n}", label, f"s{n % 2}", session=f"Ses{n % 2}")
        for label, count in counts.items()
        for n in range(count)
    ]


WHOLE = Published(20, {"label": {"happy": 12, "sad": 8}, "session": {"Ses0": 10, "Ses1": 10}})


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (items_of(happy=12, sad=8), []),
        (
            items_of(happy=11, sad=8),
            ["utterances: 19 of 20", "label happy: 11 of 12", "session Ses1: 9 of 10"],
        ),
        (
            items_of(happy=11, sad=9),
            [
                *("label happy: 11 of 12", "label sad: 9 of 8"),
                *("session Ses0: 11 of 10", "session Ses1: 9 of 10"),
            ],
        ),
        (
            items_of(happy=18),
            [
                *("utterances: 18 of 20", "label happy: 18 of 12", "label sad: missing"),
                *("session Ses0: 9 of 10", "session Ses1: 9 of 10"),
            ],
        ),
        (items_of(happy=10, sad=7), ["partial copy: 17 of 20"]),
        (
            items_of(happy=12, sad=6, afraid=2),
            ["label sad: 6 of 8", "label afraid: 2, none published"],
        ),
    ],
)
def test_differences_from_the_published_counts(items: list[Item], told: list[str]) -> None:
    assert count_differences(items, WHOLE) == told
    assert count_differences(items, None) == []


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1))
def test_a_complete_corpus_differs_in_nothing(counts: dict[str, int]) -> None:
    published = Published(sum(counts.values()), {"label": counts})
    assert count_differences(items_of(**counts), published) == []


def test_reasons_that_differ_in_numbers_and_paths_are_one() -> None:
    reasons = [
        "the span 1.5 to 3 s is not within 2.000 s",
        "vocal channel 02: a song",
        "the span 3 to 4 s is not within 3.125 s",
        "vocal channel 02: a song",
        "vocal channel 02: a song",
        "not there: a/b.wav",
        "not there: c/d1.wav",
        "label 'x' is unknown",
    ]
    assert count_reasons(reasons) == {
        "vocal channel 02: a song": 3,
        "the span … to … s is not within … s": 2,
        "not there: …": 2,
        "label 'x' is unknown": 1,
    }
