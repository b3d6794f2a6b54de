"""A question is a conversation whose last turn alone has no answer."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.speech_llm.models.base import Question, Turn, unheard_seconds

LONG = np.zeros(32 * 16_000, np.float32)


@pytest.mark.parametrize(
    "turns",
    [
        (Turn("a", answer="sad"), Turn("b", answer="happy")),
        (Turn("a"), Turn("b")),
    ],
)
def test_only_the_turn_that_is_asked_lacks_an_answer(turns: tuple[Turn, ...]) -> None:
    with pytest.raises(ValueError, match="expected answers in all turns but the last"):
        Question("x", "", turns)


class Deaf:
    """Hears 30 s of the turn that is asked."""

    longest_seconds: float | None = 30.0
    hears_exemplars = False


def test_what_is_beyond_the_longest_audio_is_counted_in_turns_that_are_heard() -> None:
    question = Question("x", "", (Turn("a", LONG, "sad"), Turn("b", LONG)))
    model = Deaf()
    assert question.seconds == 64
    assert unheard_seconds(model, question) == 2  # type: ignore[arg-type]
    model.hears_exemplars = True
    assert unheard_seconds(model, question) == 4  # type: ignore[arg-type]
    model.longest_seconds = None
    assert unheard_seconds(model, question) == 0  # type: ignore[arg-type]
