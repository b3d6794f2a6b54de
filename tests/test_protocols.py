"""Protocols keep speakers apart whatever the corpus looks like, and leaks are found and refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpora._adapter import Item
from features.errors import ManifestError, ParamsError
from features.leaks import count_classes, count_speakers, find_leaks, gate
from features.protocols import PROTOCOLS, assign

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


@given(corpora(), st.sampled_from(["speaker", "session"]))
def test_leave_one_out(items: list[Item], what: str) -> None:
    splits = assign(items, protocol=f"leave_one_{what}_out", folds=1)
    check_folds(items, splits, lambda item: str(getattr(item, what)))
    names = {getattr(item, what) for item in items}
    assert len(splits[0]) == len(names)
    tested = [{i.speaker for i in held(items, splits, "test", j)} for j in range(len(names))]
    assert [len(found) for found in tested] == [1] * len(names)


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


def test_validation_is_the_next_part_and_names_count_naturally() -> None:
    items = corpus([1] * 11)
    splits = assign(items, protocol="leave_one_speaker_out", folds=1)
    assert held(items, splits, "test", 2)[0].speaker == "s2"
    assert held(items, splits, "valid", 2)[0].speaker == "s3"
    assert held(items, splits, "test", 10)[0].speaker == "s10"
    assert held(items, splits, "valid", 10)[0].speaker == "s0"


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


LEAKY = [
    Item("1", "sad", "anna", audio="a.wav", dialogue="d1", sentence="t"),
    Item("2", "sad", "anna", audio="b.wav", dialogue="d1", sentence="t"),
    Item("3", "sad", "bert", audio="c.wav", dialogue="d2", sentence="t"),
    Item("4", "happy", "cleo", audio="c.wav"),
]


def test_leaks_are_named_with_where_they_are() -> None:
    splits = [("train", "test"), ("train", "valid"), ("test", "train"), ("valid", "train")]
    assert [str(leak) for leak in find_leaks(LEAKY, splits)] == [
        "speaker: 1 of 3 occur in more than one split (fold 1), such as anna (test, valid)",
        "dialogue: 1 of 2 occur in more than one split (fold 1), such as d1 (test, valid)",
        "recording: 1 of 3 occur in more than one split (fold 0), such as c.wav (test, valid)",
        "sentence: 1 of 1 occur in more than one split (fold 0, 1), such as t (test, valid, train)",
    ]


def test_unused_utterances_leak_nothing() -> None:
    splits = [("train",), ("unused",), ("unused",), ("test",)]
    assert find_leaks(LEAKY, splits) == []


def test_the_gate() -> None:
    splits = [("train",), ("valid",), ("train",), ("test",)]
    leaks = find_leaks(LEAKY, splits)
    with pytest.raises(ManifestError) as caught:
        gate(leaks, ["recording"], corpus="mine")
    message = str(caught.value)
    assert "corpus 'mine': the splits leak" in message
    assert "anna (train, valid)" in message
    assert "c.wav" not in message
    assert "corpora.mine.allow_leak: [dialogue, recording, speaker]" in message
    gate(leaks, ["dialogue", "recording", "speaker"], corpus="mine")


def test_a_sentence_on_both_sides_is_no_reason_to_refuse() -> None:
    splits = [("train",), ("train",), ("test",), ("test",)]
    leaks = find_leaks(LEAKY, splits)
    assert [leak.kind for leak in leaks] == ["sentence"]
    gate(leaks, [], corpus="mine")


def test_counts() -> None:
    splits = [("train", "test"), ("train", "valid"), ("test", "train"), ("valid", "unused")]
    assert count_speakers(LEAKY, splits) == [
        {"train": 1, "valid": 1, "test": 1},
        {"train": 1, "valid": 1, "test": 1, "unused": 1},
    ]
    assert count_classes(LEAKY, splits, ["sad", "happy"])[0] == {
        "train": {"sad": 2, "happy": 0},
        "valid": {"sad": 0, "happy": 1},
        "test": {"sad": 1, "happy": 0},
    }


def test_every_protocol_is_known() -> None:
    items = [replace(i, split="train", session=i.speaker) for i in corpus([2] * 6)]
    items += [Item("v", "sad", "v", split="valid", session="v")]
    items += [Item("t", "sad", "t", split="test", session="t")]
    for protocol in PROTOCOLS:
        assert find_leaks(items, assign(items, protocol=protocol, folds=3)) == []
