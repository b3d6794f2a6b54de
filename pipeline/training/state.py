"""The state of a training, and what it reports to while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.model.base import FusionModel
from pipeline.params.training import FALLING, LAST, LOSS, TrainParams
from pipeline.training.fitting import Fitting, to_stderr
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.schedules import Schedule


class Progress:
    """What a training reports to: this base prints messages and ignores everything else.

    Subclasses show, save or stop trainings. An exception in any of these methods ends the training.
    """

    def begin(self, training: Training) -> None:
        """Called before the first epoch; may restore the state that an earlier process saved."""

    def advance(self, ids: tuple[str, ...], loss: float | None) -> None:
        """Called after each optimiser step and each batch of the validation split.

        Args:
            ids: Utterances of the step or batch.
            loss: Their mean loss; None in validation.
        """

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Called after each epoch; `ended` after the last one."""

    def message(self, text: str) -> None:
        """Called with an event that deserves a line of its own."""
        to_stderr(text)


SILENT = Progress()


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: Number of the epoch, from 1.
        lr: Learning rate at the first step of that epoch.
        train_loss: Mean loss over the training split, with dropout and augmentation.
        valid_loss: Mean loss over the validation split.
        scores: Metrics of the validation split by name; NaN where undefined.
        train_tasks: Mean loss of each target over the training split; empty with classes alone.
        valid_tasks: The same over the validation split.
    """

    epoch: int
    lr: float
    train_loss: float
    valid_loss: float
    scores: dict[str, float]
    train_tasks: dict[str, float] = field(default_factory=dict)
    valid_tasks: dict[str, float] = field(default_factory=dict)

    def score(self, monitor: str) -> float:
        """The metric that `train.monitor` names, the validation loss, or how late it is."""
        if monitor == LAST:
            return self.epoch
        return self.valid_loss if monitor == LOSS else self.scores[monitor]


@dataclass
class CurrentEpoch:
    """Position within an unfinished epoch, between two optimiser steps.

    Attributes:
        lr: Learning rate at its first step.
        generator: State of the training's generator at its start, which gives the same batches
            again.
        batches: Number of finished batches.
        total: Sum of their losses, each weighted by its size.
        seen: Sum of their sizes.
        tasks: Both sums by target; empty with classes alone.
    """

    lr: float
    generator: dict[str, Any]
    batches: int = 0
    total: float = 0.0
    seen: float = 0.0
    tasks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, loss: float, size: float, tasks: Mapping[str, tuple[float, float]]) -> None:
        """Count the mean loss of a batch, and of each target in it, with their sizes."""
        self.total += loss * size
        self.seen += size
        for name, (mean, count) in tasks.items():
            total, seen = self.tasks.get(name, (0.0, 0.0))
            self.tasks[name] = (total + mean * count, seen + count)

    def task_means(self) -> dict[str, float]:
        """Mean loss by target."""
        return {name: total / seen for name, (total, seen) in self.tasks.items()}


@dataclass
class Training:
    """Everything that changes while a model is trained, so that it can be saved and resumed.

    One more state is torch's global generator, from which dropout draws.

    Attributes:
        model: The model with the weights of the last step.
        optimizer: Optimiser of the model.
        schedule: Learning rates.
        generator: Generator of batches, samplers and augmentation.
        history: One entry an epoch.
        best: Number of the best epoch so far, from 1; 0: none.
        best_weights: Its trainable state, in the computer's own memory.
        scaler: Scaler of the loss, where the model asks for one.
        current: The unfinished epoch; None between two epochs.
        fitting: Largest batch that fits the device's memory.
        ranks: Processes that train the model together.
        progress: What steps, epochs and messages are reported to.
        skipped: Batches that had nothing to learn from.
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
    current: CurrentEpoch | None = None
    fitting: Fitting = field(default_factory=Fitting)
    ranks: Ranks = ALONE
    progress: Progress = SILENT
    skipped: int = 0

    def ended(self, params: TrainParams) -> bool:
        """Whether all epochs are done, or the last `patience` of them were not better."""
        done = len(self.history)
        return done >= params.epochs or done - self.best >= params.patience

    def add(self, epoch: Epoch, monitor: str) -> None:
        """Append a finished epoch, and copy the weights if it is the best so far."""
        sign = -1.0 if monitor in FALLING else 1.0
        best = sign * self.history[self.best - 1].score(monitor) if self.best else -math.inf
        self.history.append(epoch)
        self.current = None
        # Of equal ones the first is kept; what is undefined (NaN) is above nothing.
        if sign * epoch.score(monitor) > best:
            self.best = epoch.epoch
            # On the CPU: the device's memory is left to the computation.
            state = trainable_state(self.model)
            self.best_weights = {n: value.to("cpu", copy=True) for n, value in state.items()}

    def start_epoch(self) -> CurrentEpoch:
        """Return the unfinished epoch, its generator rewound; without one, a new epoch."""
        if self.current is not None:
            self.generator.bit_generator.state = self.current.generator
            return self.current
        return CurrentEpoch(self.schedule.rate, dict(self.generator.bit_generator.state))


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Entries of a state dict that training changes: all but weights without gradients."""
    fixed = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    return {name: value for name, value in model.state_dict().items() if name not in fixed}


def load_trainable(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `trainable_state` returned; the rest stays as it is."""
    found = model.load_state_dict(state, strict=False)
    wrong = [*found.unexpected_keys, *(set(found.missing_keys) & trainable_state(model).keys())]
    assert not wrong, wrong
