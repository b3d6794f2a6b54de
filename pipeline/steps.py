"""Optimiser steps: some batches forward and backward, then one update; the same in both regimes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from features.errors import HeronryError
from pipeline.batch import Batch
from pipeline.fusion._model import FusionModel
from pipeline.micro_batches import StandIn, TooLargeError
from pipeline.train_params import TrainParams
from pipeline.training_state import Tick, Training, Within

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
