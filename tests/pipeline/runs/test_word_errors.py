"""The word error rate: a distance, by its definition, over the words of the corpus."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runs.word_errors import WordErrors, edits, word_errors

SENTENCES = st.lists(st.sampled_from("abc"), max_size=6).map(tuple)


@cache
def by_definition(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """All ways to end: drop a word of the first, add one of the second, or pair their last."""
    if not first or not second:
        return len(first) + len(second)
    return min(
        by_definition(first[:-1], second) + 1,
        by_definition(first, second[:-1]) + 1,
        by_definition(first[:-1], second[:-1]) + (first[-1] != second[-1]),
    )


@given(SENTENCES, SENTENCES)
def test_fewest_edits(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    assert edits(first, second) == by_definition(first, second)


@pytest.mark.parametrize(
    ("reference", "heard", "errors", "words"),
    [
        ("the cat sat", "the cat sat", 0, 3),
        ("the cat sat", "the bat sat", 1, 3),
        ("the cat sat", "cat sat", 1, 3),
        ("the cat sat", "the cat it sat", 1, 3),
        ("the cat sat", "", 3, 3),
        ("Well, DON\u2019T you?", "well don't you", 0, 3),
        ("no", "oh no no no", 3, 1),
        ("...", "um", 1, 0),
    ],
)
def test_known_errors(reference: str, heard: str, errors: int, words: int) -> None:
    assert word_errors([(reference, heard)]) == WordErrors(errors, words)


def test_the_rate_is_that_of_all_words_together() -> None:
    """Not the mean of the utterances' rates, which here were (0 + 1) / 2."""
    assert word_errors([("a b c", "a b c"), ("a", "b")]).rate == 1 / 4
    assert word_errors([("a", "b c d")]).rate == 3  # more than one is possible
    assert word_errors([("...", "a")]).rate is None
    assert word_errors([]).rate is None
