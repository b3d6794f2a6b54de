"""A trained model under worse conditions: a slot dropped, texts shuffled, or words recognised.

`without_<slot>` zeroes the features of that slot, as HERON's modality dropout does in training
(bins become bin 0, "unvoiced"); masks stay as they are. `shuffled_text` gives each test utterance
the text of another one, so that the words are natural and say nothing: what the score then loses
is what it owed to the words. `asr_text` gives each the words that a speech recogniser heard, as far
as the corpus tells them: others keep their reference (`pipeline.recognised` counts them). Nothing
is trained again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from features.cache import CacheReader
from features.manifest import Label
from features.stream import Stream
from pipeline.data import Examples
from pipeline.dialogues import stack_turns
from pipeline.fusion._model import FusionModel
from pipeline.run_extras import CONDITIONS
from pipeline.training import evaluate

TEXT = "text"  # the slot


@dataclass(frozen=True)
class Altered(Examples):
    """Examples whose batches come without a slot's features, or with others.

    Attributes:
        without: A slot whose features are zeroed; empty: none.
        swapped: By slot: id of the utterance that each one gets its features from.
        heard: Features of recognised words, for the text slot; None: those of the reference.
    """

    without: str = ""
    swapped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    heard: CacheReader | None = None

    def _stream(self, slot: str, ids: Sequence[str]) -> Stream:
        if slot == TEXT and self.heard is not None:
            return _preferring(self.heard, self.readers[slot], ids)
        return self._changed(slot, super()._stream(slot, self._sources(slot, ids)))

    def _turns(self, slot: str, ids: Sequence[str], mask: Tensor) -> Stream:
        if slot == TEXT and self.heard is not None:
            return stack_turns(_preferring(self.heard, self.readers[slot], ids), mask)
        return self._changed(slot, super()._turns(slot, self._sources(slot, ids), mask))

    def _sources(self, slot: str, ids: Sequence[str]) -> Sequence[str]:
        source = self.swapped.get(slot)
        return ids if source is None else [source[id] for id in ids]

    def _changed(self, slot: str, stream: Stream) -> Stream:
        if slot != self.without:
            return stream
        return Stream(torch.zeros_like(stream.values), stream.mask)


def conditions(
    examples: Examples, test: Sequence[Label], seed: int, heard: CacheReader | None = None
) -> Iterator[tuple[str, Altered]]:
    """The conditions that fit a model's slots, with the examples of each.

    A model of one slot has nothing left without it, and gets none of the first kind. Without
    features of recognised words (`heard`) there is no `asr_text`.
    """
    plain = Altered(**{each.name: getattr(examples, each.name) for each in fields(examples)})
    if len(examples.readers) > 1:
        for slot in examples.readers:
            yield f"without_{slot}", replace(plain, without=slot)
    if TEXT in examples.readers and len(test) > 1:
        yield "shuffled_text", replace(plain, swapped={TEXT: _deranged(test, seed)})
    if TEXT in examples.readers and heard is not None:
        yield "asr_text", replace(plain, heard=heard)


def write_conditions(
    path: Path,
    model: FusionModel,
    examples: Examples,
    test: Sequence[Label],
    seed: int,
    *,
    asr: Path | None = None,
) -> None:
    """Predict the test split under each condition.

    Args:
        path: A CSV file of the columns `run_extras.CONDITIONS`.
        model: Trained.
        examples: Features and labels.
        test: Labels of the test split.
        seed: Decides who gets whose text.
        asr: Cache folder of recognised words; None: there are none.
    """
    heard = None if asr is None else CacheReader(asr)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CONDITIONS)
        for name, altered in conditions(examples, test, seed, heard):
            guesses = evaluate(model, altered, test).probabilities.argmax(1)
            for label, guess in zip(test, guesses, strict=True):
                writer.writerow([label.id, name, label.label, examples.classes[int(guess)]])


def _preferring(first: CacheReader, second: CacheReader, ids: Sequence[str]) -> Stream:
    """Utterances by the first reader that has them."""
    streams = [(first if id in first else second).batch([id]) for id in ids]
    return Stream.pad([stream.values[0] for stream in streams])


def _deranged(labels: Sequence[Label], seed: int) -> dict[str, str]:
    """For each id another one, each once: a random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(len(labels))
    ids = [labels[place].id for place in order]
    return dict(zip(ids, [*ids[1:], ids[0]], strict=True))
