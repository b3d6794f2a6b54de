"""Worse conditions and linear probes for a model that was trained with its backbones.

Conditions (`pipeline.runs.conditions`): the tuned backbones read the test utterances again, the
text slot with another utterance's words or with recognised ones. A slot's features are zeroed where
the fusion gets them, as in the cached regime.

Probes (`pipeline.runs.probes`) read the features of the tuned networks, which were fitted to the
training utterances: they say what can be read off one slot after tuning, not what the pretrained
features hold. That is said by a run on caches.

Shapes: N utterances, D width of a slot's vector.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from features.backbone.base import notices
from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.source import LiveExamples
from pipeline.model.batch import Batch
from pipeline.params.file import ModelEntry, Params
from pipeline.runs.conditions import Condition, conditions_of
from pipeline.runs.probes import Vectors, time_averages, write_probes
from pipeline.runs.recognised import count_words, test_labels
from pipeline.runs.rows import reader_of
from pipeline.runs.word_errors import TEXT
from pipeline.training.predict import in_parts


@dataclass(frozen=True)
class LiveCondition(LiveExamples):
    """Live examples with other texts.

    Attributes:
        instead: Utterances that the text slot's backbone reads in place of others, by their id.
    """

    instead: Mapping[str, Utterance] = field(default_factory=dict)

    def read(self, slot: str, id: str) -> Utterance:
        """The utterance that a slot's backbone reads for an id."""
        own = super().read(slot, id)
        return self.instead.get(id, own) if slot == TEXT else own


def live_conditions(
    examples: LiveExamples, test: Sequence[Label], seed: int, *, recognised: bool
) -> Iterator[tuple[Condition, LiveCondition]]:
    """The conditions of a model, with the examples of each; texts are exchanged as on caches."""
    own = {each.name: getattr(examples, each.name) for each in dataclasses.fields(examples)}
    for each in conditions_of(list(examples.specs), test, seed, recognised=recognised):
        yield each, LiveCondition(**own, instead=dict(_instead(examples, test, each)))


def live_recognised(
    params: Params, model: ModelEntry, examples: LiveExamples, text: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Facts about the test on recognised words, for run.json; None: there is no such test.

    `text` holds `backbone`, `spec` and `provenance` of the text slot; None if it is not filled.
    """
    if params.backbone(model.asr).kind == "none" or text is None:
        return None
    asr = {id: utterance.asr for id, utterance in examples.utterances.items()}
    heard = [
        dataclasses.replace(label, asr=asr[label.id])
        for label in test_labels(examples)
        if asr[label.id] is not None
    ]
    if not heard:
        if examples.ranks.is_first:
            sys.stderr.write(
                f"the corpus has recognised words of no test utterance: {model.name} is not tested "
                "on them\n"
            )
        return None
    own = (examples.utterances[label.id] for label in heard)
    read = (dataclasses.replace(utterance, text=utterance.asr) for utterance in own)
    noticed = dict(notices(examples.backbones[TEXT], read))
    facts = {**text, "backbone": model.asr, **({"noticed": noticed} if noticed else {})}
    return count_words(facts, examples, heard)


def _instead(
    examples: LiveExamples, test: Sequence[Label], condition: Condition
) -> Iterator[tuple[str, Utterance]]:
    swapped = condition.swapped.get(TEXT, {})
    for label in test:
        own = examples.utterances[label.id]
        if label.id in swapped:  # under its own id, by which its label and other streams are found
            yield label.id, dataclasses.replace(examples.utterances[swapped[label.id]], id=label.id)
        elif condition.recognised and own.asr is not None:
            yield label.id, dataclasses.replace(own, text=own.asr)


def write_live_probes(path: Path, model: EndToEnd, examples: LiveExamples, fold: int) -> None:
    """Fit a probe on each slot of a fold, and write its test predictions.

    Of several processes all compute features, and the first one fits and writes.
    """
    train, test = examples.split(fold, "train"), examples.split(fold, "test")
    found, count = live_vectors(model, examples, [*train, *test]), len(train)
    if examples.ranks.is_first:
        vectors = {slot: (each[:count], each[count:]) for slot, each in found.items()}
        write_probes(path, reader_of(examples), train, test, vectors)


def live_vectors(
    model: EndToEnd, examples: LiveExamples, labels: Sequence[Label]
) -> dict[str, Vectors]:
    """One vector per utterance, `[N, D]` by slot, in eval mode; all processes get the result."""
    specs = examples.specs

    def averages(part: Batch) -> dict[str, Vectors]:
        streams = model.streams(part)
        return {slot: time_averages(streams[slot], spec) for slot, spec in specs.items()}

    rows: dict[str, Vectors] = {}
    for places, found in in_parts(model, examples, labels, averages):
        for slot, vectors in found.items():
            rows.setdefault(slot, np.empty((len(labels), vectors.shape[1])))[places] = vectors
    return rows
