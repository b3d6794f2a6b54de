"""The training loop: one model, one seed, one fold.

The kept epoch is the one with the best `monitor` on the *validation* split. The test split is not
among the arguments, so it cannot be selected on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from features.errors import ParamsError
from features.manifest import Label
from pipeline.augment import mixup, seqaug
from pipeline.batch import Batch
from pipeline.batch_rows import batch_count
from pipeline.data import ordered_batches, shuffled_batches
from pipeline.example_source import ExampleSource
from pipeline.fusion._model import FusionModel
from pipeline.losses import make_criterion
from pipeline.metrics import validation_scores
from pipeline.micro_batches import Fitting, StandIn
from pipeline.ranks import ranks_of
from pipeline.sampling import class_counts, draw, sampler_weights
from pipeline.schedules import Schedule
from pipeline.steps import FAULTS, Step, device_of, make_optimizer, scored
from pipeline.train_params import TrainParams
from pipeline.training_state import Epoch, Tick, Training, Watcher, put_back

EVALUATION_BATCH = 64  # utterances (dialogues); changes no number beyond float rounding


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns; the model it was given holds the weights of the best epoch.

    Attributes:
        history: One entry an epoch.
        best: Number of the epoch that was kept, from 1.
    """

    history: list[Epoch]
    best: int


@dataclass(frozen=True)
class Scored:
    """A model's output on a list of utterances.

    Attributes:
        probabilities: `[N, K]` float64, in the order of the list.
        loss: Mean loss.
    """

    probabilities: NDArray[np.float64]
    loss: float


def fit(
    model: FusionModel,
    examples: ExampleSource,
    *,
    train: Sequence[Label],
    valid: Sequence[Label],
    params: TrainParams,
    seed: int,
    watcher: Watcher | None = None,
) -> Fitted:
    """Train `model` in place, and leave it with the weights of its best validation epoch.

    Args:
        model: Freshly made; gets the protocol's criterion, with class weights of `train`.
        examples: Where the features come from.
        train: Training split.
        valid: Validation split.
        params: The protocol.
        seed: Of the order of batches; dropout draws from torch's global generator, which the
            caller has seeded.
        watcher: Told of each epoch.

    Raises:
        NotFiniteError: If the loss is not finite, naming the utterances of the batch.
        TooLargeError: If an utterance does not fit the device's memory.
        ParamsError: If the protocol cannot be that of a model over dialogues.
    """
    training = begin(model, examples, train, params, seed)
    if watcher is not None:
        watcher.begin(training)
    while not training.ended(params):
        training.within = training.start()
        rate = training.within.lr
        train_loss = train_epoch(training, examples, train, params)
        scored = evaluate(model, examples, valid, ticked=training.tick)
        predicted = scored.probabilities.argmax(1)
        scores = validation_scores(_truth(examples, valid), predicted, len(examples.classes))
        number = len(training.history) + 1
        training.add(Epoch(number, rate, train_loss, scored.loss, scores), params.monitor)
        training.schedule.epoch_ended(scored.loss)
        if watcher is not None:
            watcher.epoch_ended(training, ended=training.ended(params))
    put_back(model, training.best_weights)
    return Fitted(training.history, training.best)


def begin(
    model: FusionModel,
    examples: ExampleSource,
    train: Sequence[Label],
    params: TrainParams,
    seed: int,
) -> Training:
    """The state before the first epoch, as `fit` has it."""
    _check_unit(model, params)
    counts = torch.from_numpy(class_counts(train, examples.classes))
    model.criterion = make_criterion(params, counts).to(device_of(model))
    batches = batch_count(examples, train, params.batch_size, unit=model.unit)
    schedule = Schedule(
        params.schedule,
        params.lr,
        steps=params.epochs * math.ceil(batches / params.accumulate),
        warmup=params.warmup_steps,
        ends=(params.lr_start, params.lr_end),
    )
    generator = np.random.default_rng(seed)
    scaler = torch.amp.GradScaler(device_of(model).type, enabled=model.scales_loss)
    optimizer = make_optimizer(model, params)
    ranks = ranks_of(examples)
    return Training(model, optimizer, schedule, generator, scaler=scaler, ranks=ranks)


def evaluate(
    model: FusionModel,
    examples: ExampleSource,
    labels: Sequence[Label],
    *,
    ticked: Callable[[Tick], None] | None = None,
) -> Scored:
    """Probabilities and loss of some utterances, in eval mode; `ticked` is told of each batch.

    Processes that share the rows of each batch all have the result.
    """
    model.eval()
    ranks = ranks_of(examples)
    fitting = Fitting()
    rows: list[NDArray[np.float64]] = [np.empty(0)] * len(labels)
    total = size = 0.0
    for places, batch in ordered_batches(examples, labels, EVALUATION_BATCH, unit=model.unit):
        where = {labels[place].id: place for place in places}
        found = ranks.together(partial(_parts, model, fitting, batch), FAULTS)
        parts = list(chain.from_iterable(found))
        for part in parts:
            total, size = total + part.loss * part.size, size + part.size
            for id, row in zip(part.ids, part.probabilities, strict=True):
                rows[where[id]] = row
        if ticked is not None:
            ticked(Tick(tuple(id for part in parts for id in part.ids), None))
    return Scored(np.stack(rows), total / size)


def train_epoch(
    training: Training, examples: ExampleSource, labels: Sequence[Label], params: TrainParams
) -> float:
    """One pass; a step each `accumulate` batches, its gradient the mean over what they score.

    An epoch that is under way goes on behind the batches that are done.

    Returns:
        The mean loss.
    """
    model, generator, within = training.model, training.generator, training.start()
    model.train()
    if params.sampler != "none":
        counts = class_counts(labels, examples.classes)
        done, epochs = len(training.history), params.epochs
        weights = sampler_weights(params.sampler, counts, done=done, epochs=epochs)
        labels = draw(labels, examples.classes, weights, generator)
    step = Step(training, params.clip_norm)
    batches = shuffled_batches(
        examples, labels, params.batch_size, generator, unit=model.unit, skip=within.batches
    )
    for number, batch in enumerate(batches, within.batches + 1):
        step.add(_augmented(batch, params, len(examples.classes), generator))
        if number % params.accumulate == 0:
            step.finish(within)
    if step:
        step.finish(within)
    return within.total / within.seen


class _Part(NamedTuple):
    """What a model makes of N rows: probabilities `[N, K]`, mean loss, and what it is over."""

    ids: tuple[str, ...]
    probabilities: NDArray[np.float64]
    loss: float
    size: float


def _parts(model: FusionModel, fitting: Fitting, batch: Batch) -> list[_Part]:
    """A batch in the parts that fit; what only stands in is computed, and is no part of it."""
    device = device_of(model)
    with torch.inference_mode():
        parts = fitting.all(batch, lambda part: _scored(model, part.to(device)))
    return [] if isinstance(batch, StandIn) else parts


def _scored(model: FusionModel, batch: Batch) -> _Part:
    prediction = model(batch)
    logits, truth = scored(batch, prediction.logits)
    loss = float(model.loss(prediction, batch))
    probabilities = logits.double().softmax(1).cpu().numpy()
    return _Part(batch.ids, probabilities, loss, model.criterion.size(truth))


def _augmented(
    batch: Batch, params: TrainParams, classes: int, generator: np.random.Generator
) -> Batch:
    if params.seqaug > 0:
        batch = seqaug(batch, params.seqaug, generator)
    if params.mixup > 0:
        batch = mixup(batch, params.mixup, classes, generator)
    return batch


def _check_unit(model: FusionModel, params: TrainParams) -> None:
    """Samplers and augmentation are defined for utterances; a dialogue has turns of all classes."""
    for name, off in (("sampler", "none"), ("seqaug", 0), ("mixup", 0)):
        given = getattr(params, name)
        if model.unit == "dialogue" and given != off:
            raise ParamsError(
                f"train.{name}: given {given} for a model over dialogues, whose turns have their "
                f"order and all classes; set `{name}: {off}`"
            )


def _truth(examples: ExampleSource, labels: Sequence[Label]) -> NDArray[np.int64]:
    return np.array([examples.classes.index(label.label) for label in labels], np.int64)
