"""Votes are counted once each, and a cell of free text is read whatever stands in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from features.corpora._votes.msp import split_detail
from features.corpora._votes.tally import averaged, tally
from features.corpus.ratings import Rating

CLASSES = ("sad", "happy", "angry")
NAMES = (*CLASSES, "other", "calm")
RATINGS = st.lists(
    st.builds(
        lambda id, label, secondary, value: (id, label, secondary, value),
        st.sampled_from("ab"),
        st.none() | st.sampled_from(NAMES),
        st.none() | st.lists(st.sampled_from(NAMES), min_size=1).map(tuple),
        st.none() | st.integers(1, 5).map(lambda value: {"arousal": value}),
    )
).map(lambda rows: [Rating(row[0], str(n), None, *row[1:]) for n, row in enumerate(rows)])


@given(RATINGS)
def test_each_rater_votes_once_inside_or_outside_the_classes(ratings: list[Rating]) -> None:
    found = tally(ratings, CLASSES)
    for id in "ab":
        chosen = [r for r in ratings if r.id == id and r.label is not None]
        assert (id in found) == bool(chosen)
        if id not in found:
            continue
        votes, outside = found[id].votes or {}, found[id].votes_outside
        assert sum(votes.values()) + (outside or 0) == len(chosen)
        assert list(votes) == [name for name in CLASSES if name in votes]
        assert all(votes.values())
        # Nobody names a class both first and beside it.
        for name, count in (found[id].secondary or {}).items():
            assert (
                count
                == sum(name in (r.secondary or ()) and r.label != name for r in chosen)
                <= len(chosen) - votes.get(name, 0)
            )


@given(RATINGS)
def test_every_name_is_a_vote_where_mentions_count(ratings: list[Rating]) -> None:
    for id, found in tally(ratings, CLASSES, mentions=True).items():
        named = [{r.label, *(r.secondary or ())} for r in ratings if r.id == id and r.label]
        total = sum((found.votes or {}).values()) + (found.votes_outside or 0)
        assert total == sum(map(len, named))
        assert found.secondary is None


@given(RATINGS)
def test_a_mean_is_over_those_who_gave_a_value(ratings: list[Rating]) -> None:
    for id, means in averaged(ratings).items():
        given_values = [r.values["arousal"] for r in ratings if r.id == id and r.values]
        assert means["arousal"] == sum(given_values) / len(given_values)


@given(st.text("Other-AVD;:,\"'() 17/", min_size=1), st.text("Happy,Other- :A7"))
def test_free_text_does_not_hide_the_numbers(primary: str, secondary: str) -> None:
    found = split_detail(f"WORKER7; {primary}; {secondary}; A:1; V:2; D:3;")
    assert {name: part.strip() for name, part in found.items()} == {
        "WorkerID": "WORKER7",
        "EmoClass_Major": primary.strip(),
        "EmoClass_Second": secondary.strip(),
        "EmoAct": "1",
        "EmoVal": "2",
        "EmoDom": "3",
    }
