"""Leaving one speaker or one session out: who tests, who validates, and what nothing trains on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Item
from features.corpus.leaks import find_leaks
from features.corpus.protocols import assign
from tests.support.corpora.protocol_laws import check_folds, corpora, corpus, held


@given(corpora(), st.sampled_from(["speaker", "session"]))
def test_leave_one_out(items: list[Item], what: str) -> None:
    splits = assign(items, protocol=f"leave_one_{what}_out", folds=1)
    names = {getattr(item, what) for item in items}
    assert len(splits[0]) == len(names)
    for split in ("test", "valid"):
        parts = [
            {getattr(i, what) for i in held(items, splits, split, j)} for j in range(len(names))
        ]
        assert [len(part) for part in parts] == [1] * len(names)
        # Each is tested once; one who shares no dialogue may validate for a lone other, too.
        assert set().union(*parts) == names or (split, what) == ("valid", "speaker")
    for j in range(len(names)):
        where = defaultdict(set)
        for item, row in zip(items, splits, strict=True):
            where[getattr(item, what)].add(row[j])
        assert all(len(found) == 1 for found in where.values())
        assert len(held(items, splits, "train", j)) > 0


def sessions(draw_sizes: Sequence[tuple[int, int]]) -> list[Item]:
    """IEMOCAP's shape: in each session two speakers, who share all of its dialogues."""
    return [
        Item(f"{s}{who}{n}", "sad", f"Ses{s}{who}", session=f"Ses{s}", dialogue=f"Ses{s}_{n % 3}")
        for s, sizes in enumerate(draw_sizes)
        for who, size in zip("FM", sizes, strict=True)
        for n in range(size)
    ]


@given(st.lists(st.tuples(st.integers(3, 9), st.integers(3, 9)), min_size=3, max_size=6))
def test_sessions_of_two_speakers(sizes: list[tuple[int, int]]) -> None:
    items = sessions(sizes)
    splits = assign(items, protocol="leave_one_session_out", folds=1)
    assert len(splits[0]) == len(sizes)
    check_folds(items, splits, lambda item: item.session)
    check_folds(items, splits, lambda item: item.speaker)
    check_folds(items, splits, lambda item: item.dialogue)
    assert find_leaks(items, splits) == []


@given(st.lists(st.tuples(st.integers(3, 9), st.integers(3, 9)), min_size=3, max_size=6))
def test_of_two_who_talk_one_tests_and_the_other_validates(sizes: list[tuple[int, int]]) -> None:
    items = sessions(sizes)
    splits = assign(items, protocol="leave_one_speaker_out", folds=1)
    check_folds(items, splits, lambda item: item.speaker)
    assert len(splits[0]) == 2 * len(sizes)
    for fold in range(len(splits[0])):
        (tested,) = {item.session for item in held(items, splits, "test", fold)}
        assert {item.session for item in held(items, splits, "valid", fold)} == {tested}
        assert tested not in {item.session for item in held(items, splits, "train", fold)}


def test_a_lone_speaker_among_pairs_is_validated_by_the_next() -> None:
    pairs = [replace(i, dialogue=f"d{int(i.speaker[1:]) // 2}") for i in corpus([2] * 5)]
    splits = assign(pairs, protocol="leave_one_speaker_out", folds=1)
    assert {item.speaker for item in held(pairs, splits, "valid", 4)} == {"s0"}
    assert {item.speaker for item in held(pairs, splits, "valid", 3)} == {"s2"}


def test_validation_is_the_next_part_and_names_count_naturally() -> None:
    items = corpus([1] * 11)
    splits = assign(items, protocol="leave_one_speaker_out", folds=1)
    assert held(items, splits, "test", 2)[0].speaker == "s2"
    assert held(items, splits, "valid", 2)[0].speaker == "s3"
    assert held(items, splits, "test", 10)[0].speaker == "s10"
    assert held(items, splits, "valid", 10)[0].speaker == "s0"
