"""The training loop: one model, one seed, one fold.

The kept epoch is the one with the best `monitor` on the *validation* split. The test split is not
among the arguments, so it cannot be selected on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.corpus.manifest import Label
from features.errors import HeronryError, ParamsError
from pipeline.data.batching import batch_count, ordered_batches, shuffled_batches
from pipeline.data.source import ExampleSource
from pipeline.metrics import validation_scores
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.model.losses import BinaryCrossEntropy, Criterion, CrossEntropy, Focal, class_weights
from pipeline.params.training import TrainParams
from pipeline.training.augment import mixup, seqaug
from pipeline.training.fitting import Fitting, StandIn, TooLargeError
from pipeline.training.ranks import ranks_of
from pipeline.training.sampling import class_counts, draw, sampler_weights
from pipeline.training.schedules import Schedule
from pipeline.training.state import Epoch, Tick, Training, Watcher, Within, put_back


def make_criterion(params: TrainParams, counts: Tensor) -> Criterion:
    """The loss that the protocol names.

    Args:
        params: The protocol.
        counts: `[K]` labels of each class in the training split.
    """
    weights = class_weights(counts) if params.loss.startswith("weighted") else None
    focal = (params.focal_alpha, params.focal_gamma) if params.loss.endswith("focal") else None
    smoothing = params.label_smoothing
    if params.mixup > 0:
        return BinaryCrossEntropy(weights, smoothing, focal)
    if focal is not None:
        return Focal(*focal, weights, smoothing)
    return CrossEntropy(weights, smoothing)


SMALLEST_SCALE = 2.0**-14  # of a float16 loss: after 30 steps in a row that had to be left out


class NotFiniteError(HeronryError):
    """A loss or a gradient is no finite number; the weights are those before it."""


FAULTS = (NotFiniteError, TooLargeError)  # what the share of one process may bring to light


class Micro(NamedTuple):
    """What a batch adds to an optimiser step.

    Attributes:
        loss: Its mean.
        size: What that mean is over.
    """

    loss: float
    size: float


class Part(NamedTuple):
    """What one process adds to an optimiser step.

    Attributes:
        micros: Of its batches.
        ids: Their utterances.
        limit: As that of its `Fitting`.
        fault: Why it cannot go on.
    """

    micros: list[Micro]
    ids: tuple[str, ...]
    limit: int | None
    fault: HeronryError | None


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


class Step:
    """One optimiser step: batches whose gradients add up, then the update.

    Where several processes train together, each adds its share of every batch. They agree at the
    end of the step, so that a fault in one ends all.

    Args:
        training: Changed by it.
        clip_norm: Largest norm of the gradient.
    """

    def __init__(self, training: Training, clip_norm: float) -> None:
        self.training, self.clip_norm = training, clip_norm
        self._device = device_of(training.model)
        self._batches: list[Batch] = []
        self._micros: list[Micro] = []
        self._fault: HeronryError | None = None

    def __bool__(self) -> bool:
        """Whether there is any batch."""
        return bool(self._batches)

    def add(self, batch: Batch) -> None:
        """Forward and backward.

        A batch that does not fit may have left some of its gradients, so that all of this step is
        then computed once more.

        Raises:
            NotFiniteError: If a loss is not finite.
            TooLargeError: If a single row of the batch does not fit.
        """
        self._batches.append(batch)
        try:
            self._add(batch)
        except FAULTS as error:
            if self.training.ranks.count == 1:
                raise
            self._fault = self._fault or error

    def _add(self, batch: Batch) -> None:
        again = [batch]
        while (micros := self.training.fitting.attempt(again, self._micro)) is None:
            self.training.optimizer.zero_grad(set_to_none=True)
            self._micros, again = [], self._batches
        self._micros += micros

    def finish(self, within: Within) -> None:
        """Update the weights, note that in the epoch, and begin the next step."""
        micros, ids = self._all()
        size = sum(micro.size for micro in micros)
        update(self.training, size, self.clip_norm, ids)
        before = within.total
        for micro in micros:
            within.total += micro.loss * micro.size
        within.seen += size
        within.batches += len(self._batches)
        self._batches, self._micros = [], []
        self.training.tick(Tick(ids, (within.total - before) / size))

    def _all(self) -> tuple[list[Micro], tuple[str, ...]]:
        """What all processes add to this step, and its utterances."""
        own = (batch.ids for batch in self._batches if not isinstance(batch, StandIn))
        fitting, ranks = self.training.fitting, self.training.ranks
        ids = tuple(itertools.chain.from_iterable(own))
        parts = ranks.gather(Part(self._micros, ids, fitting.limit, self._fault))
        ranks.check([part.fault for part in parts])
        # What did not fit in one process is cut in all from now on, and so after a restart.
        fitting.limit = min((p.limit for p in parts if p.limit is not None), default=None)
        micros = [micro for part in parts for micro in part.micros]
        return micros, tuple(id for part in parts for id in part.ids)

    def _micro(self, part: Batch) -> Micro:
        return micro_step(self.training, part.to(self._device))


def micro_step(training: Training, batch: Batch) -> Micro:
    """One batch forward and backward, on the device that it is on.

    Gradients add up, each batch's mean weighed by its size, until `update` divides them.

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
    if isinstance(batch, StandIn):
        size = 0.0
    training.scaler.scale(loss * size).backward()  # type: ignore[no-untyped-call]
    return Micro(value, size)


def update(training: Training, size: float, clip_norm: float, ids: Sequence[str] = ()) -> None:
    """One step of the optimiser, by the mean gradient of what was scored.

    Where the loss is scaled for float16, a gradient that overflows is the scaler's to leave out.

    Args:
        training: With the gradients of some batches.
        size: Sum of their sizes.
        clip_norm: Largest norm of the gradient.
        ids: Their utterances, for messages.

    Raises:
        NotFiniteError: If the gradient is not finite, or overflows with any scale.
    """
    scaler = training.scaler
    parameters = list(training.model.parameters())
    training.ranks.add_up(parameters)
    scaler.unscale_(training.optimizer)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(size)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
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
    """Logits `[N, K]` and labels of what is scored: all utterances, or turns with a label."""
    assert batch.labels is not None
    if logits.ndim == 2:
        return logits, batch.labels
    known = batch.labels >= 0
    return logits[known], batch.labels[known]


def device_of(model: FusionModel) -> torch.device:
    """Where a model computes."""
    return next(model.parameters()).device


def _not_finite(what: str, value: float, ids: Sequence[str]) -> NotFiniteError:
    return NotFiniteError(
        f"the {what} is {value} on a batch with utterances {list(ids)}; "
        "expected a finite number: lower `train.lr`, or look at these utterances' features"
    )


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
