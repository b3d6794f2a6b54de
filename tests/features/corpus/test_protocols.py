"""Protocols keep speakers apart whatever the corpus looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Item
from features.corpus.leaks import find_leaks
from features.corpus.protocols import PROTOCOLS, assign
from features.errors import ManifestError, ParamsError
from tests.support.corpora.protocol_laws import SPLITS, check_folds, corpora, corpus, held


def count_groups(items: Sequence[Item]) -> int:
    """Connected speakers, the slow way: merge any two sets that meet until none do."""
    groups = [{item.speaker, f"dialogue {item.dialogue or item.id}"} for item in items]
    merged = True
    while merged:
        merged = False
        for one in groups:
            other = next((g for g in groups if g is not one and g & one), None)
            if other is not None:
                one |= other
                groups = [group for group in groups if group is not other]
                merged = True
                break
    return len(groups)


@given(corpora(), st.sampled_from(["speaker_split", "speaker_folds"]), st.integers(3, 6))
def test_speaker_protocols(items: list[Item], protocol: str, folds: int) -> None:
    wanted = 3 if protocol == "speaker_split" else folds
    if count_groups(items) < wanted:
        with pytest.raises(ParamsError, match="groups of speakers"):
            assign(items, protocol=protocol, folds=folds)
        return
    splits = assign(items, protocol=protocol, folds=folds)
    check_folds(items, splits, lambda item: item.speaker)
    check_folds(items, splits, lambda item: item.dialogue or item.id)
    assert len(splits[0]) == (1 if protocol == "speaker_split" else folds)


@given(corpora(), st.randoms())
def test_the_order_of_the_items_does_not_matter(items: list[Item], random: object) -> None:
    splits = dict(zip([i.id for i in items], assign_split(items), strict=True))
    random.shuffle(items)  # type: ignore[attr-defined]
    assert dict(zip([i.id for i in items], assign_split(items), strict=True)) == splits


def assign_split(items: Sequence[Item]) -> list[object]:
    try:
        return list(assign(items, protocol="speaker_split", folds=1))
    except ParamsError:
        return [None] * len(items)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=20), st.integers(3, 5))
def test_folds_differ_by_one_speaker_at_most(sizes: list[int], folds: int) -> None:
    folds = min(folds, len(sizes))
    items = corpus(sizes)
    splits = assign(items, protocol="speaker_folds", folds=folds)
    tested = [len(held(items, splits, "test", fold)) for fold in range(folds)]
    assert max(tested) - min(tested) <= max(sizes)


def test_a_speaker_split_of_equal_speakers_is_60_20_20_with_even_genders() -> None:
    items = corpus([7] * 20, genders="fm" * 10)
    splits = assign(items, protocol="speaker_split", folds=1)
    for split, speakers in (("train", 12), ("valid", 4), ("test", 4)):
        found = Counter(item.gender for item in held(items, splits, split))
        assert found == {"f": 7 * speakers / 2, "m": 7 * speakers / 2}


def distance(items: Sequence[Item], split_of: dict[str, str]) -> float:
    """Chi-square distance from 60/20/20, over all utterances and over those of each gender."""
    total = 0.0
    for chosen in (items, *([i for i in items if i.gender == gender] for gender in "fm")):
        for split, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
            target = share * len(chosen)
            found = sum(split_of[item.speaker] == split for item in chosen)
            total += (found - target) ** 2 / target if target else 0.0
    return total


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from("fm")), min_size=3, max_size=15))
def test_no_speaker_would_make_the_splits_evener_elsewhere(people: list[tuple[int, str]]) -> None:
    items = corpus([size for size, _ in people], genders="".join(letter for _, letter in people))
    splits = assign(items, protocol="speaker_split", folds=1)
    split_of = {item.speaker: row[0] for item, row in zip(items, splits, strict=True)}
    least = distance(items, split_of) - 1e-6
    for speaker, split in split_of.items():
        if list(split_of.values()).count(split) > 1:
            moved = [distance(items, split_of | {speaker: other}) for other in SPLITS]
            assert min(moved) >= least


def test_one_speaker_who_says_most_trains() -> None:
    items = corpus([1, 1, 100])
    splits = assign(items, protocol="speaker_split", folds=1)
    assert {item.speaker for item in held(items, splits, "train")} == {"s2"}
    assert len(held(items, splits, "valid")) == len(held(items, splits, "test")) == 1


def test_as_many_speakers_as_splits() -> None:
    items = corpus([5, 5, 5], genders="fmm")
    splits = assign(items, protocol="speaker_split", folds=1)
    assert sorted({row[0] for row in splits}) == ["test", "train", "valid"]


@pytest.mark.parametrize("protocol", ["speaker_split", "speaker_folds", "leave_one_speaker_out"])
def test_one_woman_among_men_spoils_nothing(protocol: str) -> None:
    items = corpus([4] * 7, genders="fmmmmmm")
    splits = assign(items, protocol=protocol, folds=3)
    check_folds(items, splits, lambda item: item.speaker)
    where = [row[0] for item, row in zip(items, splits, strict=True) if item.gender == "f"]
    assert len(set(where)) == 1


def test_the_seed_decides_between_equal_groups() -> None:
    items = corpus([5] * 12)
    found = {tuple(assign(items, protocol="speaker_folds", folds=4, seed=s)) for s in range(5)}
    assert len(found) == 5


def test_official_takes_the_corpus_own_splits() -> None:
    items = [
        replace(item, split=split)
        for item, split in zip(corpus([1] * 4), ["test", "train", "unused", "valid"], strict=True)
    ]
    assert assign(items, protocol="official", folds=5) == [
        ("test",),
        ("train",),
        ("unused",),
        ("valid",),
    ]


@pytest.mark.parametrize(
    ("protocol", "items", "error", "message"),
    [
        ("random", corpus([1]), ParamsError, "unknown protocol 'random'; expected one of"),
        ("official", corpus([2]), ManifestError, r"2 of 2 .* have no split .*'s0_0'.*another"),
        (
            "official",
            [replace(item, split="train") for item in corpus([2])],
            ManifestError,
            "no utterance is in valid nor test; expected some in each",
        ),
        ("speaker_split", corpus([5, 5]), ParamsError, "2 groups of speakers; expected at least 3"),
        ("speaker_folds", corpus([1] * 4), ParamsError, "5 folds of 4 groups.*set folds to 4"),
        ("leave_one_speaker_out", corpus([5, 5]), ParamsError, "2 speakers; expected at least 3"),
        ("leave_one_session_out", corpus([3]), ManifestError, "3 of 3 utterances have no session"),
    ],
)
def test_what_a_protocol_lacks(
    protocol: str, items: list[Item], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        assign(items, protocol=protocol, folds=5)


def test_speaker_folds_needs_three() -> None:
    with pytest.raises(ParamsError, match="2 folds; expected at least 3"):
        assign(corpus([1] * 9), protocol="speaker_folds", folds=2)


def test_speakers_who_share_dialogues_count_as_one_group() -> None:
    items = [replace(item, dialogue="d") for item in corpus([1] * 5)]
    with pytest.raises(ParamsError, match="1 groups of speakers"):
        assign(items, protocol="speaker_split", folds=1)


@given(corpora(), st.sampled_from(["speaker_split", "speaker_folds"]), st.integers(0, 99))
def test_nothing_leaks_whatever_the_seed(items: list[Item], protocol: str, seed: int) -> None:
    if count_groups(items) >= 3:
        splits = assign(items, protocol=protocol, folds=3, seed=seed)
        assert find_leaks(items, splits) == []


def test_every_protocol_is_known() -> None:
    items = [replace(i, split="train", session=i.speaker) for i in corpus([2] * 6)]
    items += [Item("v", "sad", "v", split="valid", session="v")]
    items += [Item("t", "sad", "t", split="test", session="t")]
    for protocol in PROTOCOLS:
        assert find_leaks(items, assign(items, protocol=protocol, folds=3)) == []
