"""Simulated raters of the demo corpus: votes and ratings of arousal, valence and dominance by rule.

They judge the plan of the corpus (`_demo.plan`), not its audio, so that what can be known from the
words, from the voice and from both can be computed exactly, and audio and labels stay as they are.

1. An emotion has a prototype on scales of 1 to 7 (`PROTOTYPES`). An utterance expresses a part of
   the way from the middle, 4, to it (`expression`): words carry valence (0.9 of the way with a cue
   in the words alone; 0.5 with the voice alone), the voice carries arousal and dominance (0.9; 0.3
   with the words alone); both together 0.95 of all three; no cue nothing.
2. Twelve raters differ in gain (0.7 to 1.2) and shift (-0.5 to 0.5), and add normal noise (0.5).
   Five of them rate each utterance: 4 + gain (expression - 4) + shift + noise, rounded to a whole
   number and clipped to the scale. The value of an utterance is the mean of the five.
3. Each of the five votes for one class: `vote_shares`.

Every draw comes from a generator of its own, seeded by SHA-256 of the utterance's id and the
corpus's seed, so that an utterance has the same ratings in a corpus of any size.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.corpora._demo.plan import CLASSES, Planned
from features.corpus.ratings import Rating

ATTRIBUTES = ("arousal", "valence", "dominance")
LOW, MIDDLE, HIGH = 1.0, 4.0, 7.0
# In the order of ATTRIBUTES, which also holds for EXPRESSED.
PROTOTYPES: Mapping[str, tuple[float, float, float]] = {
    "sad": (2.5, 2.0, 2.5),
    "neutral": (4.0, 4.0, 4.0),
    "disgusted": (4.5, 2.0, 5.0),
    "surprised": (6.0, 5.0, 4.0),
    "angry": (6.0, 2.0, 6.0),
    "happy": (5.5, 6.0, 5.0),
    "other": (2.0, 3.0, 3.5),  # boredom
    "fearful": (5.5, 2.0, 2.0),
}
# Share of the way to the prototype by cue in the words and cue in the voice.
EXPRESSED: Mapping[tuple[bool, bool], tuple[float, float, float]] = {
    (False, False): (0.0, 0.0, 0.0),
    (True, False): (0.3, 0.9, 0.3),
    (False, True): (0.9, 0.5, 0.9),
    (True, True): (0.95, 0.95, 0.95),
}
CONFUSABLE: Mapping[str, str] = {
    "sad": "other",
    "neutral": "other",
    "disgusted": "angry",
    "surprised": "happy",
    "angry": "disgusted",
    "happy": "surprised",
    "other": "sad",
    "fearful": "surprised",
}
# Shares of votes for the emotion, for neutral and for the confusable emotion, by number of cues.
VOTES: Mapping[int, tuple[float, float, float]] = {
    0: (0.0, 0.8, 0.2),
    1: (0.7, 0.2, 0.1),
    2: (0.9, 0.05, 0.05),
}
RATERS, EACH = 12, 5  # raters in all, and of an utterance
GAINS, SHIFTS, NOISE = (0.7, 1.2), (-0.5, 0.5), 0.5


@dataclass(frozen=True)
class Rater:
    """How a rater uses the scales: 4 + gain (expression - 4) + shift + noise."""

    id: str
    gain: float
    shift: float


def panel(seed: int) -> tuple[Rater, ...]:
    """The raters of a corpus with this seed."""
    rng = _generator("raters", seed)
    gains, shifts = rng.uniform(*GAINS, RATERS), rng.uniform(*SHIFTS, RATERS)
    return tuple(
        Rater(f"r{number:02d}", float(gain), float(shift))
        for number, (gain, shift) in enumerate(zip(gains, shifts, strict=True), 1)
    )


def expression(p: Planned) -> dict[str, float]:
    """Attributes that an utterance expresses, on the scale of 1 to 7, before any rater."""
    shares = EXPRESSED[p.text_cue, p.audio_cue]
    return {
        name: MIDDLE + share * (prototype - MIDDLE)
        for name, share, prototype in zip(ATTRIBUTES, shares, PROTOTYPES[p.label], strict=True)
    }


def vote_shares(p: Planned) -> dict[str, float]:
    """Probability of each class, in class order, to be what a rater votes for."""
    own, neutral, confusable = VOTES[p.text_cue + p.audio_cue]
    shares = dict.fromkeys(CLASSES, 0.0)
    for name, share in ((p.label, own), ("neutral", neutral), (CONFUSABLE[p.label], confusable)):
        shares[name] += share
    return shares


def rate(p: Planned, raters: Sequence[Rater], seed: int) -> list[Rating]:
    """Ratings of an utterance by `EACH` of the raters, in their order."""
    rng = _generator(p.id, seed)
    chosen = sorted(rng.choice(len(raters), EACH, replace=False).tolist())
    votes = rng.choice(len(CLASSES), EACH, p=list(vote_shares(p).values()))
    noise = rng.normal(0.0, NOISE, (EACH, len(ATTRIBUTES)))
    expressed = np.array(list(expression(p).values())) - MIDDLE
    ratings = []
    for index, vote, error in zip(chosen, votes, noise, strict=True):
        rater = raters[index]
        said = np.rint(MIDDLE + rater.gain * expressed + rater.shift + error).clip(LOW, HIGH)
        values = dict(zip(ATTRIBUTES, said.tolist(), strict=True))
        ratings.append(Rating(p.id, rater.id, label=CLASSES[vote], values=values))
    return ratings


def votes(ratings: Iterable[Rating]) -> dict[str, float]:
    """Number of raters by class that they chose, in class order; classes of nobody are absent."""
    counts = Counter(rating.label for rating in ratings)
    return {name: float(counts[name]) for name in CLASSES if counts[name]}


def means(ratings: Iterable[Rating]) -> dict[str, float]:
    """Mean rating by attribute."""
    values = [rating.values for rating in ratings if rating.values]
    return {name: sum(each[name] for each in values) / len(values) for name in ATTRIBUTES}


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
