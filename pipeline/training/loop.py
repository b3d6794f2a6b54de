"""The training loop: one model, one seed, one fold, in both regimes.

From the top: `fit` is a whole training, `train_epoch` one half of its epochs (the other one is
`pipeline.training.predict`), `Step` one update of the weights, and the last section makes the
optimiser. It is one file, since each part only makes sense with the others: what a batch adds to a
step decides what the step divides by, and what a step reports is what a checkpoint can resume from.

The kept epoch is the one with the best `monitor` on the *validation* split. The test split is not
among the arguments, so nothing can be selected on it.

Three things make the steps of a training independent of the machine. A batch that does not fit the
device is computed in parts (`pipeline.training.fitting`); several processes each compute a share of
its rows (`pipeline.training.ranks`); several batches may form one step (`accumulate`). In each case
gradients are summed over scored items and divided once, just before the update.

Shapes: B rows of a batch (utterances or dialogues), N scored utterances or turns, K classes, A
attributes, G genders, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from features.corpus.manifest import Label
from features.errors import HeronryError, ParamsError
from features.process.devices import generator_states, set_generators
from features.process.memory import Shape, out_of_memory, smallest
from pipeline.data.batching import batch_count, shuffled_batches, typical_scored
from pipeline.data.source import ExampleSource
from pipeline.metrics.classes import validation_scores
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch, Prediction
from pipeline.model.losses.tasks import TaskLosses, TaskValue, zeros_of
from pipeline.params.training import TrainParams
from pipeline.training.augment import mixup, seqaug
from pipeline.training.criteria import criterion_of, few_rows, uncut_reason
from pipeline.training.fitting import (
    FAULTS,
    FillerBatch,
    Fitting,
    NotFiniteError,
    TooLargeError,
)
from pipeline.training.predict import device_of, evaluate, fit_inputs
from pipeline.training.ranks import ranks_of
from pipeline.training.sampling import class_counts, draw, sampler_weights
from pipeline.training.schedules import Schedule
from pipeline.training.scores import Scored, target_scores
from pipeline.training.state import (
    SILENT,
    CurrentEpoch,
    Epoch,
    Progress,
    Training,
    load_trainable,
)

SMALLEST_SCALE = 2.0**-14  # of a float16 loss: reached when 30 steps in a row had to be left out


class NothingToKeepError(HeronryError):
    """No epoch has a score to be kept by."""


@dataclass(frozen=True)
class Fitted:
    """Result of `fit`; the model that it was given holds the weights of the best epoch.

    Attributes:
        history: One entry an epoch.
        best: Number of the kept epoch, from 1.
        skipped: Batches of all epochs that had nothing to learn from.
    """

    history: list[Epoch]
    best: int
    skipped: int = 0


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
        NothingToKeepError: If the `monitor` of no epoch is defined.
    """
    training = begin(model, examples, train, params, seed, progress)
    progress.begin(training)
    fit_inputs(model, examples, train, progress)
    while not training.ended(params):
        # Attached to the training while it runs, so that a checkpoint within the epoch has it.
        training.current = training.start_epoch()
        rate = training.current.lr
        train_loss = train_epoch(training, examples, train, params)
        task_losses = training.current.task_means()
        scored = evaluate(model, examples, valid, progress)
        scores = _scores(examples, valid, scored)
        number = len(training.history) + 1
        epoch = Epoch(
            number, rate, train_loss, scored.loss, scores, task_losses, dict(scored.task_losses)
        )
        training.add(epoch, params.monitor)
        training.schedule.epoch_ended(scored.loss)
        progress.epoch_ended(training, ended=training.ended(params))
    if not training.best:
        raise NothingToKeepError(
            f"train.monitor: {params.monitor!r} is defined in none of {len(training.history)} "
            "epochs, since the validation split has too few rows with what it is about, or only "
            "equal ones; expected a number to keep an epoch by: take another monitor"
        )
    load_trainable(model, training.best_weights)
    return Fitted(training.history, training.best, training.skipped)


def _scores(examples: ExampleSource, valid: Sequence[Label], found: Scored) -> dict[str, float]:
    """Metrics of an epoch."""
    if examples.targets is not None:
        return target_scores(examples.targets, valid, found)
    truth = np.array([examples.classes.index(label.class_name) for label in valid], np.int64)
    return validation_scores(truth, found.probabilities.argmax(1), len(examples.classes))


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
    device, ranks, reader = device_of(model), ranks_of(examples), examples.targets
    batches = batch_count(examples, train, params.batch_size, unit=model.unit)
    rows = typical_scored(examples, train, params.batch_size, unit=model.unit)
    few_rows(params, rows)  # for its error
    criterion = criterion_of(params, train, examples.classes, reader, ranks.gather).to(device)
    if isinstance(criterion, TaskLosses) and params.weighting == "uncertainty":
        criterion.log_variances = zeros_of(criterion, device)
    model.criterion = criterion
    schedule = Schedule(
        params.schedule,
        params.lr,
        # The last step of an epoch may have fewer batches than `accumulate`.
        steps=params.epochs * math.ceil(batches / params.accumulate),
        warmup=params.warmup_steps,
        ends=(params.lr_start, params.lr_end),
        plateau=(params.plateau_factor, params.plateau_patience),
    )
    return Training(
        model,
        make_optimizer(model, params),
        schedule,
        np.random.default_rng(seed),
        scaler=torch.amp.GradScaler(device.type, enabled=model.scales_loss),
        fitting=Fitting(
            report=progress.message,
            whole=uncut_reason(params, criterion),
            shared=ranks.count > 1,
        ),
        ranks=ranks,
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
        *(examples, labels, params.batch_size, generator),
        unit=model.unit,
        skip=current.batches,
        by_length=model.criterion.cuts,
    )
    for number, batch in enumerate(batches, current.batches + 1):
        step.add(_augmented(batch, params, len(examples.classes), generator))
        if number % params.accumulate == 0:
            step.finish(current)
    if step:
        step.finish(current)
    # Without any target in the whole epoch there is no loss either.
    return current.total / current.seen if current.seen else math.nan


def _augmented(
    batch: Batch, params: TrainParams, classes: int, generator: np.random.Generator
) -> Batch:
    if params.seqaug > 0:
        batch = seqaug(batch, params.seqaug, generator)
    if params.mixup > 0:
        batch = mixup(batch, params.mixup, classes, generator)
    return batch


class BatchLoss(NamedTuple):
    """What a batch, or a part of one, adds to an optimiser step."""

    loss: float  # the mean
    size: float  # its divisor: the number of scored items, or the sum of their weights
    tasks: Mapping[str, TaskValue] = {}  # where there are several targets: of each


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
        before = current.total
        if size:
            try:
                update(self.training, size, self.clip_norm, ids)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise TooLargeError(
                    "weights, their gradients and the state of the optimiser do not fit the memory "
                    f"of the device ({str(error).partition('. ')[0]}); expected a larger one, a "
                    "smaller model, or, end to end, `tune: lora` or `frozen` in `e2e.slots`"
                ) from error
            for loss in losses:
                current.add(loss.loss, loss.size, loss.tasks)
        else:  # no row of it has a target: weights, averages of gradients and rate stay
            self.training.optimizer.zero_grad(set_to_none=True)
            self.training.skipped += len(self._batches)
        current.batches += len(self._batches)
        self._batches, self._losses = [], []
        # Last: a checkpoint is saved, or the training stopped, in here.
        mean = (current.total - before) / size if size else math.nan
        self.training.progress.advance(ids, mean)

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
    model, criterion = training.model, training.model.criterion
    prediction = _forward(training, batch)
    if prediction is None:
        return BatchLoss(0.0, 0.0)
    tasks: Mapping[str, TaskValue] = {}
    if isinstance(criterion, TaskLosses):
        criterion.calls.clear()
    loss = model.loss(prediction, batch)
    if isinstance(criterion, TaskLosses):
        tasks = criterion.calls[0]
    value = float(loss.detach())
    if not math.isfinite(value):
        raise _not_finite("training loss", value, batch.ids)
    size = criterion.size(batch.scored(prediction.logits)[1])
    if isinstance(batch, FillerBatch):
        size, tasks = 0.0, {}
    # The mean times its divisor is a sum over items; sums of parts, batches and processes add up
    # to the sum over the whole step, which `update` divides by the sum of the divisors.
    training.scaler.scale(loss * size).backward()  # type: ignore[no-untyped-call]
    return BatchLoss(value, size, tasks)


def _forward(training: Training, batch: Batch) -> Prediction | None:
    """The model's prediction; None if that of another process did not fit its memory.

    Where a loss needs the outputs of all processes, none may wait for one that has failed.
    """
    model, ranks = training.model, training.ranks
    if ranks.count == 1 or model.criterion.cuts:
        prediction: Prediction = model(batch)
        return prediction
    failed: Exception | None = None
    try:
        prediction = model(batch)
    except (RuntimeError, MemoryError) as error:
        failed = error
    together = all(ranks.gather(failed is None))
    if failed is not None:
        raise failed
    return prediction if together else None


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
    parameters = [*training.model.parameters(), *trained_of_loss(training.model)]
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


def _not_finite(what: str, value: float, ids: Sequence[str]) -> NotFiniteError:
    return NotFiniteError(
        f"the {what} is {value} on a batch with utterances {list(ids)}; "
        "expected a finite number: lower `train.lr`, or look at these utterances' features"
    )


def trained_of_loss(model: FusionModel) -> list[Tensor]:
    """What is trained beside a model: factors of its losses."""
    criterion = model.criterion
    return criterion.trained() if isinstance(criterion, TaskLosses) else []


def make_optimizer(model: FusionModel, params: TrainParams) -> torch.optim.Optimizer:
    """The optimiser that the protocol names, over the model's groups of parameters."""
    kinds: dict[str, type[torch.optim.AdamW | torch.optim.Adam]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
    }
    groups = model.parameter_groups(params.lr)
    if beside := trained_of_loss(model):
        # A decay would pull the factors towards 1.
        groups.append({"params": beside, "lr_scale": 1.0, "weight_decay": 0.0})
    return kinds[params.optimizer](
        groups,
        lr=params.lr,
        betas=params.betas,
        eps=params.eps,
        weight_decay=params.weight_decay,
        fused=True,  # one pass over memory: on a CPU a quarter of the time of the other ways
    )
