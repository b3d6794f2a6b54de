"""The conditions of `pipeline.runs.conditions` for a model that was trained with its backbones.

The tuned backbones read the test utterances again, the text slot with another utterance's words or
with recognised ones. Features are zeroed where the fusion gets them, in both regimes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from features.backbone.base import notices
from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from features.stream import StreamSpec
from pipeline.data.batching import ordered_batches
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.source import LiveExamples
from pipeline.model.batch import Batch
from pipeline.params.file import ModelEntry, Params
from pipeline.runs.conditions import TEXT, Change, changes
from pipeline.runs.probes import probabilities, time_averages, write_rows
from pipeline.runs.recognised import counted, tested
from pipeline.training.fitting import Fitting, StandIn
from pipeline.training.loop import EVALUATION_BATCH, FAULTS, device_of


@dataclass(frozen=True)
class LiveAltered(LiveExamples):
    """Live examples with other texts, or to be used without a slot's features.

    Attributes:
        without: A slot whose features are to be zeroed; empty: none.
        instead: By id: what the text slot's backbone reads; what is not among them it reads itself.
    """

    without: str = ""
    instead: Mapping[str, Utterance] = field(default_factory=dict)

    def read(self, slot: str, id: str) -> Utterance:
        """The utterance that a slot's backbone reads for an id."""
        own = super().read(slot, id)
        return self.instead.get(id, own) if slot == TEXT else own


def live_conditions(
    examples: LiveExamples, test: Sequence[Label], seed: int, *, recognised: bool
) -> Iterator[tuple[str, LiveAltered]]:
    """The conditions, with the examples of each.

    Args:
        examples: What the tuned backbones read.
        test: Labels of the test split.
        seed: Decides who gets whose text, as on caches.
        recognised: Whether to test on recognised words.
    """
    own = {each.name: getattr(examples, each.name) for each in dataclasses.fields(examples)}
    plain = LiveAltered(**own)
    for change in changes(list(examples.specs), test, seed, recognised=recognised):
        instead = dict(_instead(examples, test, change))
        yield change.name, dataclasses.replace(plain, without=change.without, instead=instead)


def live_recognised(
    params: Params, model: ModelEntry, examples: LiveExamples, text: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """What the test on recognised words rests on, for run.json; None: there is no such test.

    Args:
        params: params.yaml.
        model: Whose `asr` asks for it.
        examples: All that can be used.
        text: `backbone`, `spec` and `provenance` of the text slot; None: it is empty.
    """
    if params.backbone(model.asr).kind == "none" or text is None:
        return None
    heard = [label for label in tested(examples) if _has(examples, label)]
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
    return counted(facts, examples, heard)


def _has(examples: LiveExamples, label: Label) -> bool:
    return examples.utterances[label.id].asr is not None


def _instead(
    examples: LiveExamples, test: Sequence[Label], change: Change
) -> Iterator[tuple[str, Utterance]]:
    swapped = change.swapped.get(TEXT, {})
    for label in test:
        own = examples.utterances[label.id]
        if label.id in swapped:
            yield label.id, dataclasses.replace(examples.utterances[swapped[label.id]], id=label.id)
        elif change.recognised and own.asr is not None:
            yield label.id, dataclasses.replace(own, text=own.asr)


Vectors = dict[str, NDArray[np.float64]]


class _Part(NamedTuple):
    """Vectors `[N, D]` by slot of some utterances."""

    ids: tuple[str, ...]
    vectors: Vectors


def write_live_probes(path: Path, model: EndToEnd, examples: LiveExamples, fold: int) -> None:
    """Fit a probe on each slot of a fold, and write its test predictions.

    Of several processes all compute features, and the first one fits and writes.

    Args:
        path: As for `pipeline.runs.probes.write_probes`.
        model: Trained.
        examples: What its backbones read.
        fold: Whose training split is fitted, and whose test split is predicted.
    """
    train, test = examples.split(fold, "train"), examples.split(fold, "test")
    found = live_vectors(model, examples, [*train, *test])
    if not examples.ranks.is_first:
        return
    targets, count = [label.label for label in train], len(train)
    rows = {
        slot: probabilities(vectors[:count], vectors[count:], targets, examples.classes)
        for slot, vectors in found.items()
    }
    write_rows(path, examples.classes, test, rows)


def live_vectors(model: EndToEnd, examples: LiveExamples, labels: Sequence[Label]) -> Vectors:
    """One vector an utterance, `[N, D]` by slot, in eval mode; all processes have the result."""
    model.eval()
    ranks, fitting = examples.ranks, Fitting()
    rows: Vectors = {}
    for places, batch in ordered_batches(examples, labels, EVALUATION_BATCH):
        where = {labels[place].id: place for place in places}
        found = ranks.together(partial(_parts, model, examples.specs, fitting, batch), FAULTS)
        for part in chain.from_iterable(found):
            own = [where[id] for id in part.ids]
            for slot, vectors in part.vectors.items():
                rows.setdefault(slot, np.empty((len(labels), vectors.shape[1])))[own] = vectors
    return rows


@torch.inference_mode()
def _parts(
    model: EndToEnd, specs: dict[str, StreamSpec], fitting: Fitting, batch: Batch
) -> list[_Part]:
    def averages(part: Batch) -> _Part:
        streams = model.streams(part.to(device_of(model)))
        return _Part(
            part.ids, {slot: time_averages(streams[slot], spec) for slot, spec in specs.items()}
        )

    return [] if isinstance(batch, StandIn) else fitting.all(batch, averages)
