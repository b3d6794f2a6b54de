"""Simulated raters of the demo corpus: what they follow, and how well it can be known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr

from features.corpora._demo.plan import CLASSES, Planned, plan
from features.corpora._raters import (
    ATTRIBUTES,
    CONFUSABLE,
    EACH,
    HIGH,
    LOW,
    NOISE,
    PROTOTYPES,
    RATERS,
    expression,
    means,
    panel,
    rate,
    vote_shares,
    votes,
)
from features.corpora.demo import Demo
from features.corpus.agreement import Judgements, krippendorff_alpha

Floats = NDArray[np.float64]
SIZES = st.integers(20, 60).map(lambda each: 8 * each)
PLAN = plan(416, 0)


def known(p: Planned, *, words: bool, voice: bool) -> tuple[str, bool, bool]:
    """What an ideal listener learns of an utterance; without a cue it looks neutral."""
    text, audio = words and p.text_cue, voice and p.audio_cue
    return (p.label if text or audio else "neutral", text, audio)


def text(p: Planned) -> object:
    return known(p, words=True, voice=False)


def audio(p: Planned) -> object:
    return known(p, words=False, voice=True)


def both(p: Planned) -> object:
    return known(p, words=True, voice=True)


def expected(p: Planned, seed: int) -> list[float]:
    """Exact mean rating by attribute: over all raters, after rounding and clipping."""
    bounds = np.arange(LOW, HIGH)[:, None, None] + 0.5
    gains, shifts = np.array([(r.gain, r.shift) for r in panel(seed)]).T
    aims = 4 + np.outer(np.array(list(expression(p).values())) - 4, gains) + shifts
    # A rating is at least k + 1 where it lies above k + 0.5 before it is rounded.
    means = LOW + ndtr((aims - bounds) / NOISE).sum(0).mean(1)
    return [float(each) for each in means]


def ccc(x: Floats, y: Floats) -> float:
    covariance = float(np.mean((x - x.mean()) * (y - y.mean())))
    return 2 * covariance / float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def ceilings(planned: Sequence[Planned], seed: int, seen: Callable[[Planned], object]) -> Floats:
    """CCC and correlation of the best guess with the values of a corpus, `[2, 3]`.

    The guess is the mean of what the rule expects of all utterances that look the same.
    """
    rule = {key: expected(p, seed) for p in planned for key in [both(p)]}
    of = np.array([rule[both(p)] for p in planned])
    keys = [seen(p) for p in planned]
    guesses = np.zeros_like(of)
    for key in set(keys):
        same = np.array([each == key for each in keys])
        guesses[same] = of[same].mean(0)
    raters = panel(seed)
    values = np.array([list(means(rate(p, raters, seed)).values()) for p in planned])
    pairs = [(guesses[:, i], values[:, i]) for i in range(len(ATTRIBUTES))]
    return np.array([[ccc(*pair) for pair in pairs], [np.corrcoef(*pair)[0, 1] for pair in pairs]])


@settings(max_examples=5)
@given(utterances=SIZES, seed=st.integers(0, 99))
def test_words_carry_valence_and_the_voice_arousal_and_dominance(
    utterances: int, seed: int
) -> None:
    planned = plan(utterances, seed)
    words, voice, all_cues = (ceilings(planned, seed, seen)[1] for seen in (text, audio, both))
    arousal, valence, dominance = range(3)
    assert words[valence] > max(words[arousal], words[dominance]) + 0.1
    assert min(voice[arousal], voice[dominance]) > voice[valence] + 0.1
    assert (all_cues >= np.maximum(words, voice)).all()


@pytest.mark.parametrize(
    ("seen", "scores", "correlations"),
    [
        (text, (0.64, 0.92, 0.65), (0.69, 0.92, 0.69)),
        (audio, (0.95, 0.71, 0.94), (0.95, 0.74, 0.94)),
        (both, (0.97, 0.97, 0.96), (0.97, 0.97, 0.96)),
    ],
    ids=["text", "audio", "both"],
)
def test_ceilings_are_those_of_the_description(
    seen: Callable[[Planned], object],
    scores: tuple[float, ...],
    correlations: tuple[float, ...],
) -> None:
    found = ceilings(PLAN, 0, seen)
    assert found.round(2).tolist() == [list(scores), list(correlations)]


def test_raters_agree_as_the_description_says() -> None:
    ratings = [rating for p in PLAN for rating in rate(p, panel(0), 0)]
    items = np.array([[p.id for p in PLAN].index(rating.id) for rating in ratings])
    raters = np.array([int(rating.rater[1:]) - 1 for rating in ratings])

    def alpha(values: list[float]) -> Judgements:
        return Judgements(items, raters, np.array(values), len(PLAN), RATERS)

    found = [
        krippendorff_alpha(alpha([(rating.values or {})[name] for rating in ratings]), "interval")
        for name in ATTRIBUTES
    ]
    chosen = [float(CLASSES.index(str(rating.label))) for rating in ratings]
    found.append(krippendorff_alpha(alpha(chosen), "nominal"))
    assert [round(each, 2) for each in found] == [0.73, 0.76, 0.68, 0.63]


def test_what_is_expressed_lies_between_the_middle_and_the_prototype() -> None:
    for p in PLAN:
        for value, end in zip(expression(p).values(), PROTOTYPES[p.label], strict=True):
            assert min(4, end) <= value <= max(4, end)
    silent = [p for p in PLAN if not (p.text_cue or p.audio_cue)]
    assert {tuple(expression(p).values()) for p in silent} == {(4.0, 4.0, 4.0)}


def test_votes_are_a_distribution_with_the_emotion_on_top() -> None:
    for p in PLAN:
        shares = vote_shares(p)
        assert list(shares) == list(CLASSES)
        assert math.isclose(sum(shares.values()), 1)
        assert max(shares, key=shares.__getitem__) == p.label
        assert shares[CONFUSABLE[p.label]] > 0
    assert all(CONFUSABLE[name] not in (name, "neutral") for name in CLASSES)


def test_five_raters_use_whole_numbers_of_the_scale() -> None:
    raters = panel(0)
    assert len(raters) == RATERS
    for p in PLAN:
        ratings = rate(p, raters, 0)
        assert len({rating.rater for rating in ratings}) == EACH
        for rating in ratings:
            assert rating.values is not None
            assert list(rating.values) == list(ATTRIBUTES)
            assert all(v.is_integer() and LOW <= v <= HIGH for v in rating.values.values())
        assert sum(votes(ratings).values()) == EACH
    assert {rating.rater for p in PLAN for rating in rate(p, raters, 0)} == {r.id for r in raters}


def test_an_utterance_has_the_same_ratings_in_any_order_and_others_with_another_seed() -> None:
    raters = panel(0)
    forwards = [rate(p, raters, 0) for p in PLAN]
    assert [rate(p, raters, 0) for p in reversed(PLAN)] == forwards[::-1]
    assert panel(1) != raters
    assert [rate(p, raters, 1) for p in PLAN] != forwards


def test_mean_ratings_are_those_of_the_rule() -> None:
    planned = plan(2400, 0)
    values = np.array([list(means(rate(p, panel(0), 0)).values()) for p in planned])
    errors = values - np.array([expected(p, 0) for p in planned])
    standard = errors.std(0) / len(planned) ** 0.5
    assert (np.abs(errors.mean(0)) < 4 * standard).all()
    counted = [votes(rate(p, panel(0), 0)) for p in planned]
    for name in CLASSES:
        counts = np.array([each.get(name, 0) for each in counted])
        share = np.mean([vote_shares(p)[name] for p in planned])
        assert abs(counts.mean() / EACH - share) < 4 * (share / EACH / len(planned)) ** 0.5


def test_items_carry_what_is_asked_for(tmp_path: Path) -> None:
    plain = list(Demo(tmp_path).preview())
    assert list(Demo(tmp_path).ratings()) == []
    demo = Demo(tmp_path, targets=("classes", "votes", "attributes"))
    ratings = list(demo.ratings())
    assert len(ratings) == EACH * len(plain)
    for before, item in zip(plain, demo.preview(), strict=True):
        own = [rating for rating in ratings[:50] if rating.id == item.id]
        if own:
            assert item.values == means(own)
            assert item.votes == votes(own)
        assert before.votes is before.values is None
        kept = ("id", "label", "speaker", "text", "split")
        assert [getattr(item, name) for name in kept] == [getattr(before, name) for name in kept]
    only = next(Demo(tmp_path, targets=("attributes",)).preview())
    assert only.votes is None
    assert only.values
