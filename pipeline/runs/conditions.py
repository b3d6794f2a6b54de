"""Tests a trained model under worse conditions: without a slot, with shuffled or recognised text.

`without_<slot>` zeroes the features of that slot, as HERON's modality dropout does in training
(bins become bin 0, "unvoiced"); masks are kept. `shuffled_text` gives each test utterance the text
of another one, so that the words are natural but uninformative: what the score loses is what it
owed to the words. `asr_text` gives each the words that a speech recogniser heard, where the corpus
has them; others keep their reference (`pipeline.runs.recognised` counts them). Nothing is trained
again. After end-to-end training the tuned backbones read the changed texts (`pipeline.e2e.extras`);
everything else is the same in both regimes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from features.cache.reader import CacheReader
from features.corpus.manifest import Label
from features.files.csv_text import write_csv
from features.stream import Stream
from pipeline.data.dialogues import stack_turns
from pipeline.data.examples import Examples
from pipeline.data.source import ExampleSource
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.runs.layout import CONDITIONS
from pipeline.runs.rows import named, reader_of, short_cells
from pipeline.runs.word_errors import TEXT
from pipeline.training.predict import evaluate


class Condition(NamedTuple):
    """Changes that a condition makes.

    Attributes:
        name: Name in conditions.csv.
        without: Slot whose features are zeroed; empty: none.
        swapped: By slot: id of the utterance that each one gets its features from.
        recognised: Whether recognised words replace the text.
    """

    name: str
    without: str = ""
    swapped: Mapping[str, Mapping[str, str]] = {}
    recognised: bool = False


@dataclass(frozen=True)
class CachedCondition(Examples):
    """Cached examples with other features in some slots.

    Attributes:
        swapped: By slot: id of the utterance that each one gets its features from.
        asr: Features of recognised words, for the text slot; None: those of the reference.
    """

    swapped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    asr: CacheReader | None = None

    def _stream(self, slot: str, ids: Sequence[str]) -> Stream:
        if slot == TEXT and self.asr is not None:
            return _prefer(self.asr, self.readers[slot], ids)
        return super()._stream(slot, self._sources(slot, ids))

    def _turns(self, slot: str, ids: Sequence[str], mask: Tensor) -> Stream:
        if slot == TEXT and self.asr is not None:
            return stack_turns(_prefer(self.asr, self.readers[slot], ids), mask)
        return super()._turns(slot, self._sources(slot, ids), mask)

    def _sources(self, slot: str, ids: Sequence[str]) -> Sequence[str]:
        source = self.swapped.get(slot)
        return ids if source is None else [source[id] for id in ids]


def conditions_of(
    slots: Sequence[str], test: Sequence[Label], seed: int, *, recognised: bool
) -> Iterator[Condition]:
    """The conditions that apply to a model's slots.

    Args:
        slots: Filled slots of the model.
        test: Labels of the test split.
        seed: Random seed of the exchange of texts.
        recognised: Whether there are recognised words.
    """
    if len(slots) > 1:  # without its only slot a model would have no input
        for slot in slots:
            yield Condition(f"without_{slot}", without=slot)
    if TEXT in slots and len(test) > 1:
        yield Condition("shuffled_text", swapped={TEXT: _deranged(test, seed)})
    if TEXT in slots and recognised:
        yield Condition("asr_text", recognised=True)


def cached_conditions(
    examples: Examples, test: Sequence[Label], seed: int, asr: CacheReader | None = None
) -> Iterator[tuple[Condition, CachedCondition]]:
    """The conditions of a model on caches, with the examples of each.

    Args:
        examples: Features and labels.
        test: Labels of the test split.
        seed: Random seed of the exchange of texts.
        asr: Cache of recognised words; None: there is no `asr_text`.
    """
    # Not `dataclasses.replace`: the class changes too.
    own = {each.name: getattr(examples, each.name) for each in fields(examples)}
    for each in conditions_of(list(examples.readers), test, seed, recognised=asr is not None):
        reader = asr if each.recognised else None
        yield each, CachedCondition(**own, swapped=each.swapped, asr=reader)


def write_conditions(
    path: Path,
    model: FusionModel,
    conditions: Iterable[tuple[Condition, ExampleSource]],
    test: Sequence[Label],
    *,
    fusion: FusionModel | None = None,
    header: Sequence[str] = CONDITIONS,
    writes: bool = True,
) -> None:
    """Predict the test split under conditions, and write conditions.csv.

    Args:
        path: The file, with the columns `pipeline.runs.layout.Columns.conditions`.
        model: The trained model.
        conditions: Conditions with their examples.
        test: Labels of the test split.
        fusion: The part of the model that gets the features of all slots; None: the model itself.
        header: Columns of the file.
        writes: Whether this process writes; of several that share the rows, all predict.
    """
    rows = _rows(model, conditions, test, fusion or model)
    if writes:
        write_csv(path, header, rows)
    for _ in rows:  # predicted by a process that does not write as well
        pass


def _rows(
    model: FusionModel,
    conditions: Iterable[tuple[Condition, ExampleSource]],
    test: Sequence[Label],
    fusion: FusionModel,
) -> Iterator[list[str]]:
    """Rows of conditions.csv; a condition is predicted when its first row is asked for."""
    for condition, examples in conditions:
        with zeroed(fusion, condition.without):
            found = evaluate(model, examples, test)
        reader = reader_of(examples)
        classes = reader.outputs.classes
        more = [[]] * len(test) if examples.targets is None else short_cells(reader, found)
        for label, row, written in zip(test, found.probabilities, more, strict=True):
            truth = (label.label or "") if classes else ""
            yield [label.id, condition.name, truth, named(classes, row), *written]


@contextlib.contextmanager
def zeroed(fusion: FusionModel, slot: str) -> Iterator[None]:
    """Give a model zeros in place of a slot's features within this context; masks are kept."""

    def zero(_: Any, given: tuple[Batch]) -> tuple[Batch]:
        streams = dict(given[0].streams)
        streams[slot] = Stream(torch.zeros_like(streams[slot].values), streams[slot].mask)
        return (replace(given[0], streams=streams),)

    if not slot:
        yield
        return
    # Before the fusion, not in the batch: backbones that are part of the model come first.
    hook = fusion.register_forward_pre_hook(zero)
    try:
        yield
    finally:
        hook.remove()


def _prefer(first: CacheReader, second: CacheReader, ids: Sequence[str]) -> Stream:
    """Features of each utterance from the first of two readers that has it."""
    # One by one: a batch of one reader cannot hold utterances of the other.
    streams = [(first if id in first else second).batch([id]) for id in ids]
    return Stream.pad([stream.values[0] for stream in streams])


def _deranged(labels: Sequence[Label], seed: int) -> dict[str, str]:
    """For each id another one, each once."""
    # A random cycle through all of them, since a random permutation may leave some in place.
    order = np.random.default_rng(seed).permutation(len(labels))
    ids = [labels[place].id for place in order]
    return dict(zip(ids, [*ids[1:], ids[0]], strict=True))
