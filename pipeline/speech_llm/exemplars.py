"""Chooses exemplars for the questions of a fold: training rows, spread over the classes.

All questions of a fold have the same exemplars, from its training rows alone. Left out are rows of
a dialogue or a recording that a validation or test row of the fold belongs to, so that none is an
exemplar of its own neighbour, whatever leak the corpus allows; and, of a prompt with words, rows
without any.

Classes take turns in an order drawn by the seed; of each class the rows do. Places in the order
follow from a hash of seed, fold and id, so that they depend on no order of rows, and rows that a
corpus gains do not change how others stand to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, zip_longest

from features.corpus.manifest import Label
from features.errors import ParamsError
from pipeline.runs.layout import SCORED


def choose(
    labels: Sequence[Label],
    fold: int,
    shots: int,
    *,
    seed: int,
    with_words: bool,
    unusable: Collection[str] = (),
    recordings: Mapping[str, str | None] | None = None,
) -> list[Label]:
    """Exemplars of a fold, in the order in which they are shown.

    Args:
        labels: Labels of the corpus with a class.
        fold: Fold, from 0.
        shots: Number of exemplars; 0 gives none.
        seed: Random seed.
        with_words: Whether an exemplar needs a transcript.
        unusable: Ids of rows that cannot be one, as they have no audio.
        recordings: SHA-256 of the audio file by id: files of equal content are one recording.

    Raises:
        ParamsError: If the fold has fewer rows that could be one.
    """
    if shots == 0:
        return []
    scored = [label for label in labels if label.splits[fold] in SCORED]
    hashes = recordings or {}
    places = {place for label in scored for place in _places(label, hashes)}
    by_class: dict[str, list[Label]] = {}
    for label in labels:
        fits = label.splits[fold] == "train" and label.id not in unusable
        if fits and (label.text or not with_words) and places.isdisjoint(_places(label, hashes)):
            by_class.setdefault(label.class_name, []).append(label)
    found = sum(map(len, by_class.values()))
    if found < shots:
        raise ParamsError(
            f"shots: given {shots}, and fold {fold} has {found} training rows that can be "
            "exemplars (those in a dialogue or recording of a scored row cannot, nor those without "
            "words if the prompt has a place for them); expected as many or fewer shots"
        )
    names = sorted(by_class, key=lambda name: _rank(seed, fold, f"class {name}"))
    ranked = [sorted(by_class[name], key=lambda each: _rank(seed, fold, each.id)) for name in names]
    turns = chain.from_iterable(zip_longest(*ranked))
    chosen = [label for label in turns if label is not None][:shots]
    return sorted(chosen, key=lambda each: _rank(seed, fold, f"order {each.id}"))


def _places(label: Label, hashes: Mapping[str, str | None]) -> set[str]:
    """The dialogue and the recording that an utterance belongs to."""
    named = {"dialogue": label.dialogue, "audio": label.audio, "sha256": hashes.get(label.id)}
    return {f"{kind} {name}" for kind, name in named.items() if name is not None}


def _rank(seed: int, fold: int, what: str) -> str:
    return hashlib.sha256(f"{seed}\n{fold}\n{what}".encode()).hexdigest()
