"""A trained model under worse conditions: a slot dropped, texts shuffled, or words recognised.

`without_<slot>` zeroes the features of that slot, as HERON's modality dropout does in training
(bins become bin 0, "unvoiced"); masks stay as they are. `shuffled_text` gives each test utterance
the text of another one, so that the words are natural and say nothing: what the score then loses
is what it owed to the words. `asr_text` gives each the words that a speech recogniser heard, as far
as the corpus tells them: others keep their reference (`pipeline.runs.recognised` counts them).
Nothing is trained again. End-to-end training reads the changed texts anew (`pipeline.e2e.extras`);
all else is the same for both regimes.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from features.cache.reader import CacheReader
from features.corpus.manifest import Label
from features.stream import Stream
from pipeline.data.dialogues import stack_turns
from pipeline.data.examples import Examples
from pipeline.data.source import ExampleSource
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.runs.layout import CONDITIONS
from pipeline.training.loop import evaluate

TEXT = "text"  # the slot


class Changed(ExampleSource, Protocol):
    """Examples under a condition; the features of the slot `without`, if any, are to be zeroed."""

    @property
    def without(self) -> str:
        """A slot, or nothing."""
        ...


class Change(NamedTuple):
    """A condition.

    Attributes:
        name: As in conditions.csv.
        without: A slot whose features are zeroed; empty: none.
        swapped: By slot: id of the utterance that each one gets its features from.
        recognised: Whether recognised words replace the text.
    """

    name: str
    without: str = ""
    swapped: Mapping[str, Mapping[str, str]] = {}
    recognised: bool = False


@dataclass(frozen=True)
class Altered(Examples):
    """Examples whose batches come with other features, or are to be used without a slot's.

    Attributes:
        without: A slot whose features are to be zeroed; empty: none.
        swapped: By slot: id of the utterance that each one gets its features from.
        heard: Features of recognised words, for the text slot; None: those of the reference.
    """

    without: str = ""
    swapped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    heard: CacheReader | None = None

    def _stream(self, slot: str, ids: Sequence[str]) -> Stream:
        if slot == TEXT and self.heard is not None:
            return _preferring(self.heard, self.readers[slot], ids)
        return super()._stream(slot, self._sources(slot, ids))

    def _turns(self, slot: str, ids: Sequence[str], mask: Tensor) -> Stream:
        if slot == TEXT and self.heard is not None:
            return stack_turns(_preferring(self.heard, self.readers[slot], ids), mask)
        return super()._turns(slot, self._sources(slot, ids), mask)

    def _sources(self, slot: str, ids: Sequence[str]) -> Sequence[str]:
        source = self.swapped.get(slot)
        return ids if source is None else [source[id] for id in ids]


def changes(
    slots: Sequence[str], test: Sequence[Label], seed: int, *, recognised: bool
) -> Iterator[Change]:
    """The conditions that fit a model's slots.

    A model of one slot has nothing left without it, and gets none of the first kind.

    Args:
        slots: Of the model.
        test: Labels of the test split.
        seed: Decides who gets whose text.
        recognised: Whether there are recognised words.
    """
    if len(slots) > 1:
        for slot in slots:
            yield Change(f"without_{slot}", without=slot)
    if TEXT in slots and len(test) > 1:
        yield Change("shuffled_text", swapped={TEXT: _deranged(test, seed)})
    if TEXT in slots and recognised:
        yield Change("asr_text", recognised=True)


def conditions(
    examples: Examples, test: Sequence[Label], seed: int, heard: CacheReader | None = None
) -> Iterator[tuple[str, Altered]]:
    """The conditions of a model on caches, with the examples of each.

    Without features of recognised words (`heard`) there is no `asr_text`.
    """
    plain = Altered(**{each.name: getattr(examples, each.name) for each in fields(examples)})
    for change in changes(list(examples.readers), test, seed, recognised=heard is not None):
        reader = heard if change.recognised else None
        changed = replace(plain, without=change.without, swapped=change.swapped, heard=reader)
        yield change.name, changed


def write_conditions(
    path: Path,
    model: FusionModel,
    examples: Examples,
    test: Sequence[Label],
    seed: int,
    *,
    asr: Path | None = None,
) -> None:
    """Predict the test split from caches under each condition.

    Args:
        path: A CSV file of the columns `run_extras.CONDITIONS`.
        model: Trained.
        examples: Features and labels.
        test: Labels of the test split.
        seed: Decides who gets whose text.
        asr: Cache folder of recognised words; None: there are none.
    """
    heard = None if asr is None else CacheReader(asr)
    write_guesses(path, model, conditions(examples, test, seed, heard), test)


def write_guesses(
    path: Path,
    model: FusionModel,
    changed: Iterable[tuple[str, Changed]],
    test: Sequence[Label],
    *,
    fusion: FusionModel | None = None,
    writes: bool = True,
) -> None:
    """Predict the test split under conditions.

    Args:
        path: A CSV file of the columns `run_extras.CONDITIONS`.
        model: Trained.
        changed: Examples by condition.
        test: Labels of the test split.
        fusion: The part of the model that gets the features of all slots; None: the model itself.
        writes: Whether this process writes; of several that share the rows, all predict.
    """
    rows = []
    for name, examples in changed:
        with _zeroed(fusion or model, examples.without):
            guesses = evaluate(model, examples, test).probabilities.argmax(1)
        names = (examples.classes[int(guess)] for guess in guesses)
        rows += [
            [label.id, name, label.label, guess] for label, guess in zip(test, names, strict=True)
        ]
    if not writes:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CONDITIONS)
        writer.writerows(rows)


@contextlib.contextmanager
def _zeroed(fusion: FusionModel, slot: str) -> Iterator[None]:
    """Let a model get zeros in place of a slot's features; masks stay as they are."""

    def zero(_: Any, given: tuple[Batch]) -> tuple[Batch]:
        streams = dict(given[0].streams)
        streams[slot] = Stream(torch.zeros_like(streams[slot].values), streams[slot].mask)
        return (replace(given[0], streams=streams),)

    if not slot:
        yield
        return
    hook = fusion.register_forward_pre_hook(zero)
    try:
        yield
    finally:
        hook.remove()


def _preferring(first: CacheReader, second: CacheReader, ids: Sequence[str]) -> Stream:
    """Utterances by the first reader that has them."""
    streams = [(first if id in first else second).batch([id]) for id in ids]
    return Stream.pad([stream.values[0] for stream in streams])


def _deranged(labels: Sequence[Label], seed: int) -> dict[str, str]:
    """For each id another one, each once: a random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    ids = [labels[place].id for place in order]
    return dict(zip(ids, [*ids[1:], ids[0]], strict=True))
