"""Linear probes (`pipeline.probes`) on what tuned backbones make of each slot.

The features of a training utterance are those of networks that were fitted to it. A probe tells
what is read off one slot alone after tuning, and not what the pretrained features hold: that is
told by a run on caches.

Legend: N utterances, D width of a slot's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from features.manifest import Label
from features.stream import StreamSpec
from pipeline.batch import Batch
from pipeline.data import ordered_batches
from pipeline.end_to_end import EndToEnd
from pipeline.live import LiveExamples
from pipeline.micro_batches import Fitting, StandIn
from pipeline.probes import probabilities, time_averages, write_rows
from pipeline.steps import FAULTS, device_of
from pipeline.training import EVALUATION_BATCH

Vectors = dict[str, NDArray[np.float64]]


class _Part(NamedTuple):
    """Vectors `[N, D]` by slot of some utterances."""

    ids: tuple[str, ...]
    vectors: Vectors


def write_live_probes(path: Path, model: EndToEnd, examples: LiveExamples, fold: int) -> None:
    """Fit a probe on each slot of a fold, and write its test predictions.

    Of several processes all compute features, and the first one fits and writes.

    Args:
        path: As for `pipeline.probes.write_probes`.
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
