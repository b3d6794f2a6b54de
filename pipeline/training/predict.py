"""Passes over a split in eval mode, in parts that fit the device: predictions, loss, statistics.

Shapes: N utterances or turns, K classes, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from features.corpus.manifest import Label
from pipeline.data.batching import ordered_batches
from pipeline.data.source import ExampleSource
from pipeline.data.targets import TargetReader
from pipeline.model.base import FusionModel, Unit
from pipeline.model.batch import Batch
from pipeline.model.inputs import InputLayers
from pipeline.model.losses.tasks import TaskLosses
from pipeline.model.standardize import Moments
from pipeline.training.fitting import FAULTS, FillerBatch, Fitting
from pipeline.training.ranks import ranks_of
from pipeline.training.scores import Scored, decoded
from pipeline.training.state import SILENT, Progress

Result = TypeVar("Result")
EVALUATION_BATCH = 64  # utterances (dialogues); changes no number beyond float rounding


def evaluate(
    model: FusionModel,
    examples: ExampleSource,
    labels: Sequence[Label],
    progress: Progress = SILENT,
) -> Scored:
    """Predictions and loss of some utterances, in eval mode.

    With targets beyond one class the loss is that of all utterances as one batch, of the prediction
    alone: a mean over batches would be another number for a loss that is no mean over rows.
    """
    if examples.targets is not None:
        raw = predict(model, examples, labels, progress)
        return _scored(model, examples.targets, labels, raw)

    def score(part: Batch) -> tuple[NDArray[np.float64], float, float]:
        prediction = model(part)
        logits, truth = part.scored(prediction.logits)
        loss = float(model.loss(prediction, part))
        return logits.double().softmax(1).cpu().numpy(), loss, model.criterion.size(truth)

    rows, total, size = np.empty((0, 0)), 0.0, 0.0
    parts = in_parts(model, examples, labels, score, unit=model.unit, progress=progress)
    for places, (probabilities, loss, count) in parts:
        total, size = total + loss * count, size + count
        rows = _put(rows, places, probabilities, len(labels))
    return Scored(rows, total / size)


def predict(
    model: FusionModel,
    examples: ExampleSource,
    labels: Sequence[Label],
    progress: Progress = SILENT,
) -> NDArray[np.float64]:
    """Outputs `[N, O]` of some utterances, in eval mode; they need no label."""

    def compute(part: Batch) -> NDArray[np.float64]:
        outputs, _ = part.scored(model(part).logits)
        found: NDArray[np.float64] = outputs.double().cpu().numpy()
        return found

    rows = np.empty((0, 0))
    for places, found in in_parts(
        model, examples, labels, compute, unit=model.unit, progress=progress
    ):
        rows = _put(rows, places, found, len(labels))
    return rows


def _put(
    rows: NDArray[np.float64], places: Sequence[int], found: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Write the rows of a part into those of all, which the first part makes, `[size, ...]`."""
    if not len(rows):
        rows = np.empty((size, *found.shape[1:]))
    rows[places] = found
    return rows


@torch.inference_mode()
def _scored(
    model: FusionModel, reader: TargetReader, labels: Sequence[Label], raw: NDArray[np.float64]
) -> Scored:
    criterion = model.criterion
    assert isinstance(criterion, TaskLosses)
    device = device_of(model)
    criterion.calls.clear()
    # In float32, as they were computed: float64 would give another loss.
    outputs = torch.from_numpy(raw).float().to(device)
    loss = float(criterion(outputs, reader.read(labels).to(device)))
    return decoded(reader, raw, loss, {n: v.loss for n, v in criterion.calls[0].items()})


def fit_inputs(
    model: FusionModel,
    examples: ExampleSource,
    train: Sequence[Label],
    progress: Progress = SILENT,
) -> None:
    """Give the model's standardisations the statistics of the training split's frames.

    Those that have some keep them: of a training that is resumed, or that begins with an earlier
    run's fusion. So they are computed once, before the first step, and stay: learned mixes are
    measured as the mean of their layers, backbones that are trained with the model as pretrained.

    Utterances are added one by one in order of length, in float64, so that neither batches nor the
    device change a bit of what is read from caches.
    """
    layers = next((each for each in model.modules() if isinstance(each, InputLayers)), None)
    if layers is None or not layers.open:
        return

    def measure(part: Batch) -> dict[str, list[Moments]]:
        return layers.moments(model.streams(part))

    totals: dict[str, Moments] = {}
    for _, found in in_parts(model, examples, train, measure, progress=progress):
        for slot, several in found.items():
            for each in several:
                totals[slot] = totals[slot] + each if slot in totals else each
    for slot, scale in layers.open.items():
        scale.fit(totals[slot])


def in_parts(
    model: FusionModel,
    examples: ExampleSource,
    labels: Sequence[Label],
    compute: Callable[[Batch], Result],
    *,
    unit: Unit = "utterance",
    progress: Progress = SILENT,
) -> Iterator[tuple[list[int], Result]]:
    """Compute something of all utterances in eval mode, in parts that fit the device.

    Yields the places in `labels` of a part's utterances, and its result. Processes that share the
    rows of each batch all get the results of all.
    """
    model.eval()
    device, ranks, fitting = device_of(model), ranks_of(examples), Fitting(report=progress.message)

    def of_part(part: Batch) -> tuple[tuple[str, ...], Result]:
        return part.ids, compute(part.to(device))

    def of_batch(batch: Batch) -> list[tuple[tuple[str, ...], Result]]:
        with torch.inference_mode():  # a filler is computed by the process whose row it is
            return [] if isinstance(batch, FillerBatch) else fitting.all(batch, of_part)

    for places, batch in ordered_batches(examples, labels, EVALUATION_BATCH, unit=unit):
        where = {labels[place].id: place for place in places}
        parts = list(chain.from_iterable(ranks.gather_from(partial(of_batch, batch), FAULTS)))
        for ids, result in parts:
            yield [where[id] for id in ids], result
        progress.advance(tuple(id for ids, _ in parts for id in ids), None)


def device_of(model: FusionModel) -> torch.device:
    """The device of a model's parameters."""
    return next(model.parameters()).device
