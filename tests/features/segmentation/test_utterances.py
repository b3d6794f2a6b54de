"""Segments become utterances: placed, joined, padded, divided. Laws on random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.segmentation.hearing import Heard
from features.segmentation.placing import place
from features.segmentation.segments import Segment
from features.segmentation.utterances import Made, Rules, make_utterances
from features.segmentation.voice_activity import WINDOW_SECONDS

SECONDS = 60.0
KEEP = Rules(shortest=0.0, longest=0.0, pause=None, pad=0.0)


def silent() -> Heard:
    return Heard(np.zeros(round(SECONDS / WINDOW_SECONDS), np.float32), np.empty(0, np.float32))


def made(segments: Sequence[Segment], **rules: float | None) -> Made:
    ordered = sorted(segments, key=lambda each: (each.start, each.stop, each.speaker))
    return make_utterances(ordered, SECONDS, Rules(**{**vars(KEEP), **rules}), silent)


def spans(found: Sequence[Segment]) -> list[tuple[float, float]]:
    return [(each.start, each.stop) for each in found]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("talk", "a/talk.wav"),
        ("talk.wav", "a/talk.wav"),
        ("a/talk.wav", "a/talk.wav"),
        ("/data/a/talk.wav", "a/talk.wav"),
        ("a\\talk", "a/talk.wav"),
        ("b/same", "b/same.wav"),
        ("x/b/same.wav", "b/same.wav"),
        ("same", "same may be a/same.wav, b/same.wav; expected a name that only one has"),
        ("Talk", "no recording is named Talk; there are same, talk"),
    ],
)
def test_a_name_means_one_recording(name: str, found: str) -> None:
    seconds = dict.fromkeys(("a/talk.wav", "a/same.wav", "b/same.wav"), 9.0)
    placed = place([Segment(name, 1.0, 2.0, place="line 1")], seconds)
    if found in seconds:
        assert {path for path, held in placed.segments.items() if held} == {found}
        assert not placed.faults
    else:
        assert placed.faults == [("line 1", found)]


@pytest.mark.parametrize(
    ("start", "stop", "reason"),
    [
        (-1.0, 2.0, "starts at -1 s; expected a time from 0"),
        (3.0, 2.0, "stops at 2 s, before its start at 3 s"),
        (3.0, 3.0, "is empty: it starts and stops at 3 s"),
        (1.0001, 1.0002, "is empty: it lasts 0.0001 s"),
        (8.0, 9.2, "is from 8 to 9.2 s, but a lasts 9.000 s"),
        (9.0, 9.05, "is from 9 to 9.05 s, but a lasts 9.000 s"),
        (4.0, 5.0, "repeats line 1"),
    ],
)
def test_times_that_no_recording_holds_are_left_out(start: float, stop: float, reason: str) -> None:
    good = Segment("a", 4.0, 5.0, "x", place="line 1")
    bad = Segment("a", start, stop, "x", place="line 2")
    end = Segment("a", 8.0, 9.05, "x", place="line 3")
    placed = place([good, bad, end], {"a.wav": 9.0})
    assert placed.faults == [("line 2", reason)]
    assert spans(placed.segments["a.wav"]) == [(4.0, 5.0), (8.0, 9.0)]


def test_segments_of_a_recording_that_cannot_be_read_go_with_it() -> None:
    placed = place([Segment("a", 0, 1), Segment("b", 0, 1)], {"a.wav": None, "b.wav": 2.0})
    assert list(placed.segments) == ["b.wav"]
    assert not placed.faults


def test_one_speaker_is_joined_over_a_short_pause_and_words_with_it() -> None:
    found = made(
        [
            Segment("a", 0, 1, "x", "one"),
            Segment("a", 1.4, 2, "x", "two"),
            Segment("a", 1.2, 1.6, "y"),
            Segment("a", 2.5, 3, "x"),
            Segment("a", 3.1, 4, "x", label="sad"),
        ],
        pause=0.5,
    )
    assert [(each.start, each.stop, each.speaker, each.text) for each in found.utterances] == [
        (0, 2, "x", "one two"),
        (1.2, 1.6, "y", None),
        (2.5, 3, "x", None),
        (3.1, 4, "x", None),
    ]
    assert found.counts["overlap"] == 2


def test_overlaps_are_kept_and_counted() -> None:
    found = made(
        [
            Segment("a", 0, 5, "x"),
            Segment("a", 1, 2, "y"),
            Segment("a", 4, 6, "x"),
            Segment("a", 6, 7, "y"),
        ]
    )
    assert len(found.utterances) == 4
    assert (found.counts["overlap"], found.counts["own"]) == (2, 2)


def test_a_long_utterance_is_cut_in_its_quietest_pause() -> None:
    levels = np.ones(round(SECONDS / WINDOW_SECONDS), np.float32)

    def quiet(at: float, level: float) -> None:
        levels[round(at / WINDOW_SECONDS) + np.arange(-5, 6)] = level

    quiet(11.0, 0.0)  # too near to its beginning
    quiet(19.2, 0.2)
    quiet(24.0, 0.1)
    whole = [Segment("a", 10, 40, "x"), Segment("a", 45, 59, "y"), Segment("a", 59, 59.1, "z")]
    rules = Rules(shortest=0.2, longest=17.0, pause=None, pad=0.0)
    heard = Heard(levels, np.empty(0, np.float32))
    found = make_utterances(whole, SECONDS, rules, lambda: heard)
    assert [each.speaker for each in found.utterances] == ["x", "x", "y"]
    (first, second, _) = found.utterances
    assert first.stop == second.start == pytest.approx(24.0, abs=WINDOW_SECONDS)
    assert (found.counts["divided"], found.counts["short"]) == (1, 1)


def test_words_are_not_divided() -> None:
    found = made([Segment("a", 0, 40, "x", "a long story")], longest=10.0)
    assert spans(found.utterances) == [(0, 40)]
    assert found.counts["long"] == 1


times = st.integers(0, 59_000).map(lambda ms: ms / 1000)
lengths = st.integers(1, 20_000).map(lambda ms: ms / 1000)
segments = st.lists(
    st.builds(
        lambda start, length, speaker: Segment(
            "a", start, min(SECONDS, round(start + length, 3)), speaker
        ),
        times,
        lengths,
        st.sampled_from("xy"),
    ),
    max_size=12,
)


@given(segments=segments, pad=st.floats(0, 2))
def test_padding_stays_inside_and_never_runs_into_a_neighbour(
    segments: list[Segment], pad: float
) -> None:
    named = [replace(each, text=str(number)) for number, each in enumerate(segments)]
    before, after = made(named), made(named, pad=pad)
    bare = {each.text: each for each in before.utterances}
    for each in after.utterances:
        own = bare.pop(each.text)
        assert 0 <= each.start <= own.start < own.stop <= each.stop <= SECONDS
        assert own.start - each.start <= pad + 1e-3
        assert each.stop - own.stop <= pad + 1e-3
    assert not bare
    assert after.counts == before.counts


@given(segments=segments, longest=st.floats(1, 30))
def test_parts_of_divided_utterances_are_the_whole(segments: list[Segment], longest: float) -> None:
    parts = made(segments, longest=longest).utterances
    assert all(each.seconds <= longest + 1e-9 for each in parts)
    whole = sum(each.seconds for each in segments)
    assert sum(each.seconds for each in parts) == pytest.approx(whole, abs=1e-6)
    shortest = min([longest / 4 - 0.05, *(each.seconds for each in segments)])
    assert all(each.seconds >= shortest for each in parts)


@given(segments=segments, pause=st.floats(0.001, 5))
def test_joined_speech_has_pauses_between(segments: list[Segment], pause: float) -> None:
    joined = made(segments, pause=pause).utterances
    for speaker in "xy":
        own = [each for each in joined if each.speaker == speaker]
        ends = accumulate((each.stop for each in own), max)
        assert all(b.start - a >= pause for a, b in zip(ends, own[1:], strict=False))
        assert all(
            any(each.start >= other.start and each.stop <= other.stop for other in own)
            for each in segments
            if each.speaker == speaker
        )
