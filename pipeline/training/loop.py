"""The training loop: one model, one seed, one fold, in both regimes.

From the top: `fit` is a whole training, `train_epoch` and `evaluate` are the two halves of its
epochs, `Step` is one update of the weights, and the last section makes what the protocol names:
optimiser and loss. It is one file, since each part only makes sense with the others: what a batch
adds to a step decides what the step divides by, and what a step reports is what a checkpoint can
resume from.

The kept epoch is the one with the best `monitor` on the *validation* split. The test split is not
among the arguments, so nothing can be selected on it.

Three things make the steps of a training independent of the machine. A batch that does not fit the
device is computed in parts (`pipeline.training.fitting`); several processes each compute a share of
its rows (`pipeline.training.ranks`); several batches may form one step (`accumulate`). In each case
gradients are summed over scored items and divided once, just before the update.

Shapes: B rows of a batch (utterances or dialogues), N scored utterances or turns, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from features.corpus.manifest import Label
from features.errors import HeronryError, ParamsError
from features.process.devices import generator_states, set_generators
from features.process.memory import Shape, smallest
from pipeline.data.batching import batch_count, ordered_batches, shuffled_batches
from pipeline.data.source import ExampleSource
from pipeline.metrics.classes import validation_scores
from pipeline.model.base import FusionModel, Unit
from pipeline.model.batch import Batch
from pipeline.model.losses.classes import (
    BinaryCrossEntropy,
    Criterion,
    CrossEntropy,
    Focal,
    class_weights,
)
from pipeline.params.training import TrainParams
from pipeline.training.augment import mixup, seqaug
from pipeline.training.fitting import FillerBatch, Fitting, TooLargeError
from pipeline.training.ranks import ranks_of
from pipeline.training.sampling import class_counts, draw, sampler_weights
from pipeline.training.schedules import Schedule
from pipeline.training.state import (
    SILENT,
    CurrentEpoch,
    Epoch,
    Progress,
    Training,
    load_trainable,
)

Result = TypeVar("Result")
EVALUATION_BATCH = 64  # utterances (dialogues); changes no number beyond float rounding
SMALLEST_SCALE = 2.0**-14  # of a float16 loss: reached when 30 steps in a row had to be left out


class NotFiniteError(HeronryError):
    """A loss or a gradient is not finite; the weights are those before it."""


FAULTS = (NotFiniteError, TooLargeError)  # errors that the rows of one process alone may cause


@dataclass(frozen=True)
class Fitted:
    """Result of `fit`; the model that it was given holds the weights of the best epoch.

    Attributes:
        history: One entry an epoch.
        best: Number of the kept epoch, from 1.
    """

    history: list[Epoch]
    best: int


def fit(
    model: FusionModel,
    examples: ExampleSource,
    *,
    train: Sequence[Label],
    valid: Sequence[Label],
    params: TrainParams,
    seed: int,
    progress: Progress = SILENT,
) -> Fitted:
    """Train `model` in place, and leave it with the weights of its best validation epoch.

    Args:
        model: A new model; gets the protocol's criterion, with class weights of `train`.
        examples: Source of the features.
        train: Training split.
        valid: Validation split.
        params: The protocol.
        seed: Random seed of the order of batches; dropout draws from torch's global generator,
            which the caller has seeded.
        progress: What steps and epochs are reported to; may resume an earlier training.

    Raises:
        NotFiniteError: If the loss is not finite, naming the utterances of the batch.
        TooLargeError: If an utterance does not fit the device's memory.
        ParamsError: If the protocol is not defined for a model over dialogues.
    """
    training = begin(model, examples, train, params, seed, progress)
    progress.begin(training)
    while not training.ended(params):
        # Attached to the training while it runs, so that a checkpoint within the epoch has it.
        training.current = training.start_epoch()
        rate = training.current.lr
        train_loss = train_epoch(training, examples, train, params)
        scored = evaluate(model, examples, valid, progress)
        predicted = scored.probabilities.argmax(1)
        truth = np.array([examples.classes.index(label.class_name) for label in valid], np.int64)
        scores = validation_scores(truth, predicted, len(examples.classes))
        number = len(training.history) + 1
        training.add(Epoch(number, rate, train_loss, scored.loss, scores), params.monitor)
        training.schedule.epoch_ended(scored.loss)
        progress.epoch_ended(training, ended=training.ended(params))
    load_trainable(model, training.best_weights)
    return Fitted(training.history, training.best)


def begin(
    model: FusionModel,
    examples: ExampleSource,
    train: Sequence[Label],
    params: TrainParams,
    seed: int,
    progress: Progress = SILENT,
) -> Training:
    """The state before the first epoch; arguments as of `fit`."""
    _check_unit(model, params)
    counts = torch.from_numpy(class_counts(train, examples.classes))
    model.criterion = make_criterion(params, counts).to(device_of(model))
    batches = batch_count(examples, train, params.batch_size, unit=model.unit)
    schedule = Schedule(
        params.schedule,
        params.lr,
        # The last step of an epoch may have fewer batches than `accumulate`.
        steps=params.epochs * math.ceil(batches / params.accumulate),
        warmup=params.warmup_steps,
        ends=(params.lr_start, params.lr_end),
    )
    return Training(
        model,
        make_optimizer(model, params),
        schedule,
        np.random.default_rng(seed),
        scaler=torch.amp.GradScaler(device_of(model).type, enabled=model.scales_loss),
        fitting=Fitting(report=progress.message),
        ranks=ranks_of(examples),
        progress=progress,
    )


def _check_unit(model: FusionModel, params: TrainParams) -> None:
    """Samplers and augmentation are defined for utterances; a dialogue has turns of all classes."""
    for name, off in (("sampler", "none"), ("seqaug", 0), ("mixup", 0)):
        given = getattr(params, name)
        if model.unit == "dialogue" and given != off:
            raise ParamsError(
                f"train.{name}: given {given} for a model over dialogues, whose turns have their "
                f"order and all classes; set `{name}: {off}`"
            )


def train_epoch(
    training: Training, examples: ExampleSource, labels: Sequence[Label], params: TrainParams
) -> float:
    """One pass over the training split, in steps of `accumulate` batches; returns the mean loss.

    An unfinished epoch (`training.current`) resumes after its finished batches.
    """
    model, generator, current = training.model, training.generator, training.start_epoch()
    model.train()
    if params.sampler != "none":
        counts = class_counts(labels, examples.classes)
        done, epochs = len(training.history), params.epochs
        weights = sampler_weights(params.sampler, counts, done=done, epochs=epochs)
        labels = draw(labels, examples.classes, weights, generator)
    step = Step(training, params.clip_norm)
    batches = shuffled_batches(
        examples, labels, params.batch_size, generator, unit=model.unit, skip=current.batches
    )
    for number, batch in enumerate(batches, current.batches + 1):
        step.add(_augmented(batch, params, len(examples.classes), generator))
        if number % params.accumulate == 0:
            step.finish(current)
    if step:
        step.finish(current)
    return current.total / current.seen


def _augmented(
    batch: Batch, params: TrainParams, classes: int, generator: np.random.Generator
) -> Batch:
    if params.seqaug > 0:
        batch = seqaug(batch, params.seqaug, generator)
    if params.mixup > 0:
        batch = mixup(batch, params.mixup, classes, generator)
    return batch


@dataclass(frozen=True)
class Scored:
    """A model's output on a list of utterances.

    Attributes:
        probabilities: `[N, K]` float64, in the order of the list.
        loss: Mean loss.
    """

    probabilities: NDArray[np.float64]
    loss: float


def evaluate(
    model: FusionModel,
    examples: ExampleSource,
    labels: Sequence[Label],
    progress: Progress = SILENT,
) -> Scored:
    """Probabilities and loss of some utterances, in eval mode."""

    def score(part: Batch) -> tuple[NDArray[np.float64], float, float]:
        prediction = model(part)
        logits, truth = scored(part, prediction.logits)
        loss = float(model.loss(prediction, part))
        return logits.double().softmax(1).cpu().numpy(), loss, model.criterion.size(truth)

    rows: list[NDArray[np.float64]] = [np.empty(0)] * len(labels)
    total = size = 0.0
    parts = in_parts(model, examples, labels, score, unit=model.unit, progress=progress)
    for places, (probabilities, loss, count) in parts:
        total, size = total + loss * count, size + count
        for place, row in zip(places, probabilities, strict=True):
            rows[place] = row
    return Scored(np.stack(rows), total / size)


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


class BatchLoss(NamedTuple):
    """What a batch, or a part of one, adds to an optimiser step."""

    loss: float  # the mean
    size: float  # its divisor: the number of scored items, or the sum of their weights


class Share(NamedTuple):
    """What one process adds to an optimiser step."""

    losses: list[BatchLoss]
    ids: tuple[str, ...]
    too_large: list[Shape]  # of its `Fitting`
    fault: HeronryError | None  # that ends its training, if any


class Step:
    """One optimiser step: forward and backward of some batches, then one update.

    Where several processes train together, each adds its share of every batch. They exchange
    errors only at the end of the step, where all of them are sure to arrive.

    Args:
        training: The training; `finish` changes it.
        clip_norm: Largest norm of the gradient.
    """

    def __init__(self, training: Training, clip_norm: float) -> None:
        self.training, self.clip_norm = training, clip_norm
        self._device = device_of(training.model)
        self._batches: list[Batch] = []
        self._losses: list[BatchLoss] = []
        self._fault: HeronryError | None = None
        self._norms = [
            buffer
            for module in training.model.modules()
            if isinstance(module, _BatchNorm) and module.training
            for buffer in module.buffers()
        ]
        self._before: tuple[dict[str, Tensor], list[Tensor]] = {}, []

    def __bool__(self) -> bool:
        """Whether it has any batch."""
        return bool(self._batches)

    def add(self, batch: Batch) -> None:
        """Forward and backward of one batch.

        Raises:
            NotFiniteError: If a loss is not finite.
            TooLargeError: If a single row of the batch does not fit.
        """
        if not self._batches:
            self._before = (
                generator_states(self._device),
                [buffer.clone() for buffer in self._norms],
            )
        self._batches.append(batch)
        try:
            self._add(batch)
        except FAULTS as error:
            if self.training.ranks.count == 1:
                raise
            self._fault = self._fault or error

    def _add(self, batch: Batch) -> None:
        again = [batch]
        while (losses := self.training.fitting.attempt(again, self._compute)) is None:
            # A batch that did not fit may have left some of its gradients, and they cannot be told
            # from those of earlier batches: the whole step is computed again.
            self._undo()
            self._losses, again = [], self._batches
        self._losses += losses

    def _undo(self) -> None:
        """Go back to before the step's first batch, as if it had not been tried: same dropout."""
        self.training.optimizer.zero_grad(set_to_none=True)
        generators, buffers = self._before
        set_generators(self._device, generators)
        with torch.no_grad():
            for buffer, value in zip(self._norms, buffers, strict=True):
                buffer.copy_(value)

    def _compute(self, part: Batch) -> BatchLoss:
        return micro_step(self.training, part.to(self._device))

    def finish(self, current: CurrentEpoch) -> None:
        """Update the weights, count the batches in the epoch, and begin the next step."""
        losses, ids = self._exchange()
        size = sum(loss.size for loss in losses)
        update(self.training, size, self.clip_norm, ids)
        before = current.total
        for loss in losses:
            current.total += loss.loss * loss.size
        current.seen += size
        current.batches += len(self._batches)
        self._batches, self._losses = [], []
        # Last: a checkpoint is saved, or the training stopped, in here.
        self.training.progress.advance(ids, (current.total - before) / size)

    def _exchange(self) -> tuple[list[BatchLoss], tuple[str, ...]]:
        """Losses and utterances of all processes; an error in one is raised in all."""
        own = (batch.ids for batch in self._batches if not isinstance(batch, FillerBatch))
        fitting, ranks = self.training.fitting, self.training.ranks
        ids = tuple(chain.from_iterable(own))
        shares = ranks.gather(Share(self._losses, ids, fitting.halver.too_large, self._fault))
        ranks.check([share.fault for share in shares])
        # The same for all, so that a checkpoint has it whichever process writes it.
        fitting.halver.too_large = smallest(shape for share in shares for shape in share.too_large)
        losses = [loss for share in shares for loss in share.losses]
        return losses, tuple(id for share in shares for id in share.ids)


def micro_step(training: Training, batch: Batch) -> BatchLoss:
    """Forward and backward of one batch on its device; gradients add up until `update`.

    Raises:
        NotFiniteError: If the loss is not finite.
    """
    model = training.model
    prediction = model(batch)
    loss = model.loss(prediction, batch)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise _not_finite("training loss", value, batch.ids)
    size = model.criterion.size(scored(batch, prediction.logits)[1])
    if isinstance(batch, FillerBatch):
        size = 0.0
    # The mean times its divisor is a sum over items; sums of parts, batches and processes add up
    # to the sum over the whole step, which `update` divides by the sum of the divisors.
    training.scaler.scale(loss * size).backward()  # type: ignore[no-untyped-call]
    return BatchLoss(value, size)


def update(training: Training, size: float, clip_norm: float, ids: Sequence[str] = ()) -> None:
    """Update the weights by the mean gradient of the scored items.

    Args:
        training: The training, with the summed gradients of some batches.
        size: Sum of their sizes.
        clip_norm: Largest norm of the gradient.
        ids: Their utterances, for messages.

    Raises:
        NotFiniteError: If the gradient is not finite, or overflows float16 at any scale.
    """
    scaler = training.scaler
    parameters = list(training.model.parameters())
    training.ranks.sum_gradients(parameters)
    scaler.unscale_(training.optimizer)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(size)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    # A gradient that overflows float16 is no fault: the scaler leaves this step out and lowers its
    # scale. Only when the scale has become tiny, something else is wrong.
    unusable = scaler.get_scale() < SMALLEST_SCALE if scaler.is_enabled() else not norm.isfinite()
    if unusable:
        raise _not_finite("gradient's norm", float(norm), ids)
    for group in training.optimizer.param_groups:
        group["lr"] = training.schedule.rate * group.get("lr_scale", 1.0)
    scaler.step(training.optimizer)
    scaler.update()
    training.optimizer.zero_grad(set_to_none=True)
    training.schedule.step += 1


def scored(batch: Batch, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[N, K]` and labels of the scored items: all utterances, or the labelled turns."""
    assert batch.labels is not None
    if logits.ndim == 2:
        return logits, batch.labels
    known = batch.labels >= 0
    return logits[known], batch.labels[known]


def device_of(model: FusionModel) -> torch.device:
    """The device of a model's parameters."""
    return next(model.parameters()).device


def _not_finite(what: str, value: float, ids: Sequence[str]) -> NotFiniteError:
    return NotFiniteError(
        f"the {what} is {value} on a batch with utterances {list(ids)}; "
        "expected a finite number: lower `train.lr`, or look at these utterances' features"
    )


def make_optimizer(model: FusionModel, params: TrainParams) -> torch.optim.Optimizer:
    """The optimiser that the protocol names, over the model's groups of parameters."""
    kinds: dict[str, type[torch.optim.AdamW | torch.optim.Adam]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
    }
    return kinds[params.optimizer](
        model.parameter_groups(params.lr),
        lr=params.lr,
        betas=params.betas,
        eps=params.eps,
        weight_decay=params.weight_decay,
        fused=True,  # one pass over memory: on a CPU a quarter of the time of the other ways
    )


def make_criterion(params: TrainParams, counts: Tensor) -> Criterion:
    """The loss that the protocol names.

    Args:
        params: The protocol.
        counts: `[K]` labels of each class in the training split.
    """
    weights = class_weights(counts) if params.loss.startswith("weighted") else None
    focal = (params.focal_alpha, params.focal_gamma) if params.loss.endswith("focal") else None
    smoothing = params.label_smoothing
    if params.mixup > 0:  # labels are shares then, with a binary loss for each class
        return BinaryCrossEntropy(weights, smoothing, focal)
    if focal is not None:
        return Focal(*focal, weights, smoothing)
    return CrossEntropy(weights, smoothing)
