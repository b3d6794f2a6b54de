"""Reasons for which utterances are left out: their text in run.json, and their counts."""

from __future__ import annotations

import pytest

from pipeline.data.left_out import ReasonCount, count_by_reason, decode, encode, summary

SLOTS = ["text", "speech"]
DROPPED = {
    "a": {"speech": "has 12 samples; expected 320"},
    "b": {"speech": "has 7 samples; expected 320", "text": "has no text"},
    "c": {"text": "has no text"},
    "d": {"text": "has no text"},
    "e": {"": "of an older run"},
}


@pytest.mark.parametrize("id", "abcd")
def test_the_text_in_run_json_holds_all_reasons(id: str) -> None:
    """A reason with a semicolon and a colon of its own is not cut there."""
    text = encode(DROPPED[id])
    assert list(decode(text, SLOTS).items()) == list(DROPPED[id].items())
    assert text.startswith(f"{next(iter(DROPPED[id]))}: ")


def test_texts_without_a_known_slot_are_read_too() -> None:
    """Runs of older releases have them, and so have runs whose slots are called otherwise now."""
    assert decode("of an older run", SLOTS) == {"": "of an older run"}
    assert decode("audio: too short", SLOTS) == {"": "audio: too short"}
    assert decode("", SLOTS) == {}


def test_reasons_are_counted_by_slot_whatever_their_numbers() -> None:
    counts = count_by_reason(DROPPED)
    assert counts == [
        ReasonCount("text", "has no text", 3),
        ReasonCount("speech", "has … samples; expected …", 2),
        ReasonCount("", "of an older run", 1),
    ]
    assert summary({id: DROPPED[id] for id in "ac"}, 9).splitlines() == [
        "2 of 9 utterances are left out, alike for all slots:",
        "  speech: has 12 samples; expected 320 (1)",
        "  text: has no text (1)",
    ]
