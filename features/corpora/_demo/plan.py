"""Plan of the demo corpus: speakers, dialogues, sentences and cues of all utterances.

The plan alone determines what can be known from the words, from the voice and from both, so that
the ceilings of a classifier can be counted exactly (tests/features/corpora/test_demo.py does).

Symbols: S speakers of a split, n utterances of an emotion in a split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, count

import numpy as np

from features.corpora._demo.texts import HUMS, bank, expand
from features.corpora._demo.voices import SPEAKERS, STYLES, Speaker

CLASSES = tuple(STYLES)
SHARES = {"train": Fraction(15, 26), "valid": Fraction(4, 26), "test": Fraction(7, 26)}
ONE_CUE = Fraction(3, 10)  # share of an emotion with a cue in the words alone; the same for voice
NOTHING = Fraction(0)
WORDLESS = Fraction(1, 4)  # share without words of those with a sound as the only cue
LEAST = 6 * len(CLASSES)  # utterances; fewer leave a split without some emotion
TURNS = 4  # turns of each speaker in a dialogue, on average


@dataclass(frozen=True)
class Planned:
    """One utterance of the plan.

    Attributes:
        id: Unique in the corpus, in corpus order: dialogue and turn.
        split: train, valid or test.
        speaker: Who speaks.
        dialogue: Conversation of two speakers of one split.
        turn: Position in it, from 0.
        label: Emotion.
        text: Transcript; a hum where there are no words.
        text_cue: Whether the words show the emotion; else they are neutral.
        audio_cue: Whether the voice shows the emotion; else it is neutral.
        sound: Non-verbal sound, a part of the audio cue, or None.
        place: Place of the sound: before or after the words, or alone; None without a sound.
    """

    id: str
    split: str
    speaker: Speaker
    dialogue: str
    turn: int
    label: str
    text: str
    text_cue: bool
    audio_cue: bool
    sound: str | None
    place: str | None


@dataclass(frozen=True)
class _Cell:
    label: str
    text_cue: bool
    audio_cue: bool
    sound: str | None
    place: str | None
    text: str


def plan(utterances: int, seed: int) -> tuple[Planned, ...]:
    """Plan the corpus in order: the dialogues of train, then of valid, then of test.

    Args:
        utterances: Number of utterances, a multiple of the number of emotions.
        seed: Random seed.
    """
    planned: list[Planned] = []
    numbers = count()
    for index, split in enumerate(SHARES):
        rng = np.random.default_rng([seed, index])
        cells = _cells(split, utterances // len(CLASSES), rng)
        speakers = [speaker for speaker in SPEAKERS if speaker.split == split]
        # Dealt in turn, speakers get every emotion and every kind of cue equally often (+-1).
        hands = [cells[i :: len(speakers)] for i in range(len(speakers))]
        decks = [iter([hand[i] for i in rng.permutation(len(hand))]) for hand in hands]
        for order in _dialogues([len(hand) for hand in hands]):
            name = f"d{next(numbers):03d}"
            for turn, i in enumerate(order):
                cell = next(decks[i])
                planned.append(
                    Planned(f"{name}_t{turn:02d}", split, speakers[i], name, turn, **vars(cell))
                )
    return tuple(planned)


def _cells(split: str, each: int, rng: np.random.Generator) -> list[_Cell]:
    """Utterances of a split, not yet in dialogues, in order of emotion and cue."""
    sizes = {name: round(each * SHARES[name]) for name in ("train", "valid")}
    n = sizes.get(split, each - sum(sizes.values()))
    hums = _endless(_sentences(HUMS, split), rng)
    plain = _endless(_sentences(bank("neutral"), split), rng)
    wordless = round(n * ONE_CUE) * WORDLESS.numerator // WORDLESS.denominator
    cells = []
    for label in CLASSES:
        telling = _endless(_sentences(bank(label), split), rng)
        of_label = []
        for i, (text_cue, audio_cue, place) in enumerate(_cues(label, n, wordless, rng)):
            hum = place == "alone" or (label == "neutral" and i < wordless)
            text = next(telling if text_cue else hums if hum else plain)
            sound = STYLES[label].sound if place else None
            of_label.append(_Cell(label, text_cue, audio_cue, sound, place, text))
        # Rotated, so that the speaker who gets no cue of one kind differs between emotions.
        turn = CLASSES.index(label) % n
        cells += of_label[turn:] + of_label[:turn]
    return cells


def _cues(
    label: str, n: int, wordless: int, rng: np.random.Generator
) -> Iterator[tuple[bool, bool, str | None]]:
    """For n utterances of an emotion: cue in the words, cue in the voice, place of a sound."""
    if label == "neutral":
        yield from [(False, False, None)] * n
        return
    one = round(n * ONE_CUE)
    both = n - 2 * one
    # Half of the utterances with a cue in the voice have a sound, before as often as after.
    some = ("before", None, "after", None) if STYLES[label].sound else (None,)
    alone = wordless if STYLES[label].sound else 0
    here = ["alone"] * alone + [some[i % len(some)] for i in range(one - alone)]
    there = [some[i % len(some)] for i in range(both)]
    yield from ((True, True, there[i]) for i in rng.permutation(both))
    yield from [(True, False, None)] * one
    yield from ((False, True, here[i]) for i in rng.permutation(one))


def _sentences(patterns: Sequence[str], split: str) -> list[str]:
    """All sentences of the patterns that belong to a split, in the order of the splits."""
    ends = [round(len(patterns) * part) for part in accumulate(SHARES.values(), initial=NOTHING)]
    index = list(SHARES).index(split)
    return [text for pattern in patterns[ends[index] : ends[index + 1]] for text in expand(pattern)]


def _endless(sentences: list[str], rng: np.random.Generator) -> Iterator[str]:
    """Sentences in random order, shuffled again each time all have been used."""
    while True:
        yield from (sentences[i] for i in rng.permutation(len(sentences)))


def _dialogues(quotas: list[int]) -> Iterator[list[int]]:
    """Speaker of each turn, dialogue by dialogue, until each of S speakers has had `quotas` turns.

    Pairs follow the circle method of round-robin tournaments: each speaker meets all others before
    meeting one twice. Quotas differ by one at most.
    """
    size, least = len(quotas), min(quotas)
    left = list(quotas)
    lengths = _lengths(least)
    for number, length in enumerate(lengths):
        last = number == len(lengths) - 1
        ring = [0, *np.roll(np.arange(1, size), number).tolist()]
        for a, b in zip(ring[: size // 2], reversed(ring), strict=False):
            turns = {i: left[i] if last else length for i in (a, b)}
            left = [held - turns.get(i, 0) for i, held in enumerate(left)]
            first, second = sorted((a, b), key=lambda i: (-turns[i], (i + number) % 2))
            alternating = [first, second] * turns[second]
            yield alternating + [first] * (turns[first] - turns[second])


def _lengths(quota: int) -> list[int]:
    """Turns of a speaker in each dialogue: 3 to 5, of varying number, with the sum `quota`.

    >>> _lengths(24), _lengths(16), _lengths(2)
    ([5, 3, 4, 5, 3, 4], [5, 3, 4, 4], [2])
    """
    dialogues = max(1, round(quota / TURNS))
    lengths = [quota // dialogues + (i < quota % dialogues) for i in range(dialogues)]
    for i in range(0, dialogues - 1, 3):
        if lengths[i] == lengths[i + 1] == TURNS:
            lengths[i : i + 2] = [TURNS + 1, TURNS - 1]
    return lengths
