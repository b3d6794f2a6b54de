"""Classes read in raw answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.params.speech_llm import speech_llm_problems
from pipeline.speech_llm.reading import Reader

CLASSES = ("angry", "fearful", "happy", "neutral", "sad", "very sad", "non-verbal")
READER = Reader(CLASSES)


@pytest.mark.parametrize(
    ("answer", "label", "how"),
    [
        ("happy", "happy", "exact"),
        (" **Happy**.\n", "happy", "exact"),
        ("'SAD'", "sad", "exact"),
        ("Non verbal", "non-verbal", "exact"),
        ("neutral\nThe speaker seems happy.", "neutral", "exact"),
        ("The emotion is angry.", "angry", "word"),
        ("It is very sad, sad indeed", None, "several"),
        ("I hear a very sad voice", "very sad", "word"),
        ("Anger!", "angry", "synonym"),
        ("the speaker is afraid", "fearful", "synonym"),
        ("joy, so happy", "happy", "word"),
        ("happy, not sad", "happy", "word"),
        ("not angry but sad", "sad", "word"),
        ("It isn't happy", None, "negated"),
        ("It isn’t a happy voice; neither sad nor angry", None, "negated"),
        ("sad rather than angry", "sad", "word"),
        ("sad or neutral", None, "several"),
        ("angry angry angry", "angry", "word"),
        ("unhappy", None, "none"),
        ("", None, "none"),
        ("I cannot tell.", None, "none"),
        ("saddle", None, "none"),
    ],
)
def test_answers(answer: str, label: str | None, how: str) -> None:
    found = READER.read(answer)
    assert (found.label, found.how) == (label, how)


def test_a_negation_far_away_or_in_another_clause_denies_nothing() -> None:
    assert READER.read("I do not know what else it could be than sad").label == "sad"
    assert READER.read("No. Sad").label == "sad"


def test_words_for_two_classes_name_neither() -> None:
    reader = Reader(("joy", "happiness", "sad"))
    assert reader.read("happy").how == "none"
    assert reader.read("Joy").label == "joy"
    assert reader.read("sadness").label == "sad"


@pytest.mark.parametrize("word", ["", ":)", "*_*", " "])
def test_a_word_without_letters_is_refused(word: str) -> None:
    """It would be found in each answer without words."""
    entry = {"kind": "endpoint", "checkpoint": "m", "prompt": "p.txt"}
    assert speech_llm_problems("it", entry | {"synonyms": {"sad": ["blue", "élan"]}}) == []
    (line,) = speech_llm_problems("it", entry | {"synonyms": {"sad": ["blue", word]}})
    assert line.startswith(f"speech_llms.it.synonyms.sad: given {word!r}; expected a word with")


def test_a_class_is_never_another_word_for_a_class() -> None:
    reader = Reader(("happy", "joyful"), {"happy": ["joyful", "cheerful"]})
    assert reader.read("joyful").label == "joyful"
    assert reader.read("a cheerful voice").label == "happy"
    assert reader.read("joy").how == "none"


def test_abbreviated_classes_are_known_by_their_words() -> None:
    reader = Reader(("ang", "neu", "hap"))
    assert reader.read("neutral").label == "neu"
    assert reader.read("hap").how == "exact"


@given(st.sampled_from(CLASSES), st.sampled_from(["", " ", "\n", "**", '"', ".", "…"]))
def test_a_class_is_read_whatever_stands_around_it(name: str, sign: str) -> None:
    assert READER.read(f"{sign}{name.upper()}{sign}").label == name


@given(st.text(max_size=60))
def test_any_answer_is_read(answer: str) -> None:
    found = READER.read(answer)
    assert (found.label is None) == (found.how in ("several", "negated", "none"))
