"""How far a training is: what changes as it goes on, and who is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.model.base import FusionModel
from pipeline.params.training import TrainParams
from pipeline.training.fitting import Fitting
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.schedules import Schedule


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: From 1.
        lr: Learning rate at the first step of that epoch.
        train_loss: Mean loss over the training split, with dropout and augmentation.
        valid_loss: Mean loss over the validation split.
        scores: Metrics of the validation split by name.
    """

    epoch: int
    lr: float
    train_loss: float
    valid_loss: float
    scores: dict[str, float]


@dataclass
class Within:
    """How far the epoch under way is, between two optimiser steps.

    Attributes:
        lr: Learning rate at its first step.
        generator: State of the training's generator at its start, from which the same batches come
            again.
        batches: That are done.
        total: Sum of their losses, each weighed by its size.
        seen: Sum of their sizes.
    """

    lr: float
    generator: dict[str, Any]
    batches: int = 0
    total: float = 0.0
    seen: float = 0.0


@dataclass(frozen=True)
class Tick:
    """Some work that is done: an optimiser step, or a batch of the validation split.

    Attributes:
        ids: Utterances.
        loss: Their mean loss; None in validation.
    """

    ids: tuple[str, ...]
    loss: float | None


@dataclass
class Training:
    """All that changes while a model is trained: between two steps, all that is needed to go on.

    Beside it there is torch's global generator, from which dropout draws.

    Attributes:
        model: With the weights of the last step.
        optimizer: Of the model.
        schedule: Of the learning rate.
        generator: Of batches, samplers and augmentation.
        history: One entry an epoch.
        best: Number of the best epoch so far, from 1; 0: none.
        best_weights: What training changes of its state dict, in the computer's own memory.
        scaler: Of the loss, where the model asks for that.
        within: Of the epoch under way; None between two epochs.
        fitting: What fits the device's memory.
        ranks: Processes that train the model together.
        ticked: Told of steps and of validation batches; what one raises ends the training.
    """

    model: FusionModel
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: np.random.Generator
    history: list[Epoch] = field(default_factory=list)
    best: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    scaler: torch.amp.GradScaler = field(
        default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False)
    )
    within: Within | None = None
    fitting: Fitting = field(default_factory=Fitting)
    ranks: Ranks = ALONE
    ticked: list[Callable[[Tick], None]] = field(default_factory=list)

    def ended(self, params: TrainParams) -> bool:
        """Whether all epochs are done, or `patience` of them went without a better one."""
        done = len(self.history)
        return done >= params.epochs or done - self.best >= params.patience

    def add(self, epoch: Epoch, monitor: str) -> None:
        """Note an epoch, and keep the weights if it is the best so far."""
        best = self.history[self.best - 1].scores[monitor] if self.best else -math.inf
        self.history.append(epoch)
        self.within = None
        if epoch.scores[monitor] > best:
            self.best = epoch.epoch
            # A device's memory is for what is computed with.
            state = changing(self.model)
            self.best_weights = {n: value.to("cpu", copy=True) for n, value in state.items()}

    def start(self) -> Within:
        """The epoch under way; if there is none, that which begins now."""
        if self.within is not None:
            self.generator.bit_generator.state = self.within.generator
            return self.within
        return Within(self.schedule.rate, dict(self.generator.bit_generator.state))

    def tick(self, tick: Tick) -> None:
        """Tell whoever wants to know."""
        for told in self.ticked:
            told(tick)


class Watcher(Protocol):
    """Whoever wants to know how far a training is."""

    def begin(self, training: Training) -> None:
        """Before the first epoch; may put the training where an earlier process left it."""

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """After each epoch."""


def changing(model: nn.Module) -> dict[str, Tensor]:
    """What training changes of a model's state dict: all but weights without gradients."""
    fixed = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    return {name: value for name, value in model.state_dict().items() if name not in fixed}


def put_back(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `changing` returned; the rest stays as it is."""
    found = model.load_state_dict(state, strict=False)
    wrong = [*found.unexpected_keys, *(set(found.missing_keys) & changing(model).keys())]
    assert not wrong, wrong
