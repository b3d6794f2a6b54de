"""Silence, constants and cancelling channels are found anywhere in a recording; sound is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.audio.silence import (
    CANCELLING,
    CONSTANT,
    LOUD,
    NOT_FINITE,
    SILENT,
    WINDOW_SECONDS,
    Stretch,
    find_silence,
    judge_span,
)
from features.files.reasons import NOTICED, read_reasons
from tests.support.corpora.small_corpus import SmallCorpus

RATE = 16_000
Samples = NDArray[np.float32]


def voice(samples: int, channels: int = 1) -> Samples:
    noise = np.random.default_rng(samples).uniform(-0.1, 0.1, (samples, channels))
    return noise.astype(np.float32)


def opposite(samples: int) -> Samples:
    left = voice(samples)
    return np.stack([left[:, 0], -left[:, 0]], 1)


KINDS: dict[str, tuple[Callable[[int], Samples], str]] = {
    "zeros": (lambda n: np.zeros((n, 1), np.float32), SILENT),
    "zeros in two channels": (lambda n: np.zeros((n, 2), np.float32), SILENT),
    "the last bit flickers": (lambda n: np.float32(2**-15) * (voice(n) > 0), SILENT),
    "a constant": (lambda n: np.full((n, 1), 0.25, np.float32), CONSTANT),
    "a constant in a channel": (
        lambda n: np.tile(np.array([[0.25, 0]], np.float32), (n, 1)),
        CONSTANT,
    ),
    "opposite": (opposite, CANCELLING),
    "nearly opposite": (lambda n: opposite(n) * np.array([1, 0.97], np.float32), CANCELLING),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seconds", [0.03, 0.5, 5.003])
def test_stretches_without_sound_are_found(name: str, seconds: float) -> None:
    make, what = KINDS[name]
    samples = make(round(seconds * RATE))
    (found,) = find_silence([samples[:777], samples[777:]], RATE)
    assert judge_span([found], 0.0, seconds) == (None, what)
    speech = voice(RATE, samples.shape[1])
    found_within = find_silence([speech, samples, speech], RATE)
    notices = [what] if seconds > 0.1 else []
    assert [each.what for each in found_within] == notices
    assert judge_span(found_within, 1.0, 1.0 + seconds) == (None, what if notices else None)
    for span in ((0.0, 2.0 + seconds), (0.9, 1.0 + seconds), (1.0, 1.1 + seconds)):
        assert judge_span(found_within, *span) == (None, None)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_quiet_sound_is_sound(channels: int) -> None:
    assert not find_silence([voice(RATE, channels) * np.float32(0.002)], RATE)  # of 7 bits of 16
    one = np.zeros((RATE, channels), np.float32)
    one[:, -1:] = voice(RATE)
    assert not find_silence([one], RATE)  # the others are silent: the mean is not


def test_values_that_are_not_finite_affect_only_their_spans() -> None:
    for value in (np.nan, np.inf, -np.inf):
        samples = voice(2 * RATE)
        samples[RATE + 5] = value
        found = find_silence([samples], RATE)
        assert found == [Stretch(1.0, 1.0 + WINDOW_SECONDS, NOT_FINITE)]
        assert judge_span(found, 0.0, 2.0) == (NOT_FINITE, None)
        assert judge_span(found, 0.0, 1.0) == judge_span(found, 1.01, 2.0) == (None, None)


def test_floats_in_the_range_of_integers_are_reported() -> None:
    samples = voice(2 * RATE)
    samples[RATE:] *= 2**15
    found = find_silence([samples], RATE)
    assert found == [Stretch(1.0, 2.0, LOUD)]
    assert judge_span(found, 0.5, 1.5) == (None, LOUD)
    assert judge_span(found, 0.0, 1.0) == (None, None)
    assert not find_silence([voice(RATE) * np.float32(40)], RATE)  # 12 dB too loud
    largest = np.full((RATE, 2), np.finfo(np.float32).max)
    assert find_silence([largest], RATE) == [Stretch(0.0, 1.0, NOT_FINITE)]  # in their mean


@given(
    st.lists(st.tuples(st.sampled_from(["zeros", "a constant", "sound"]), st.integers(1, 40))),
    st.integers(1, 5_000),
)
def test_the_size_of_blocks_does_not_matter(parts: list[tuple[str, int]], block: int) -> None:
    made = [KINDS[k][0](160 * n) if k in KINDS else voice(160 * n) for k, n in parts]
    whole = np.concatenate([np.zeros((0, 1), np.float32), *made])
    pieces = [whole[at : at + block] for at in range(0, len(whole), block)]
    found = find_silence(pieces, RATE)
    assert found == find_silence([whole] if len(whole) else [], RATE)
    flat = sum(160 * n for kind, n in parts if kind != "sound") / RATE
    assert sum(each.stop - each.start for each in found) <= flat + 1e-9


def test_prepare_reports_clips_without_sound(mine: SmallCorpus) -> None:
    """Whole files and spans alike; also when the files are not read again."""
    mine.four()
    pause = np.zeros((RATE, 1), np.float32)
    soundfile.write(mine.root / "0.wav", pause, RATE)
    soundfile.write(mine.root / "1.wav", opposite(RATE), RATE, subtype="FLOAT")
    soundfile.write(mine.root / "long.wav", np.concatenate([voice(RATE), pause]), RATE)
    spans = ("long.wav,,0,1,sad,x,d9,train,said", "long.wav,,1,2,happy,x,d9,train,unsaid")
    mine.table(*mine.rows(), *spans)
    for _ in range(2):
        done = mine.prepare()
        expected = {"0": SILENT, "1": CANCELLING, "unsaid": SILENT}
        assert read_reasons(mine.out / "labels" / NOTICED) == expected
        assert (done.card["noticed"], done.card["noticed_reasons"][SILENT]) == (3, 2)


def test_prepare_rejects_spans_that_cannot_be_decoded(mine: SmallCorpus) -> None:
    mine.four()
    samples = voice(2 * RATE)
    samples[RATE + 100] = np.nan
    soundfile.write(mine.root / "long.wav", samples, RATE, subtype="FLOAT")
    spans = ("long.wav,,0,1,sad,x,d9,train,good", "long.wav,,1,2,happy,x,d9,train,bad")
    mine.table(*mine.rows(), *spans)
    done = mine.prepare(allow_rejected=1)
    assert done.rejected == {"bad": f"long.wav: {NOT_FINITE}"}
