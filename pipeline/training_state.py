"""How far a training is: what changes from epoch to epoch, and who is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.fusion._model import FusionModel
from pipeline.schedules import Schedule
from pipeline.train_params import TrainParams


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
class Training:
    """All that changes while a model is trained: between two epochs, all that is needed to go on.

    Beside it there is torch's global generator, from which dropout draws.

    Attributes:
        model: With the weights of the last epoch.
        optimizer: Of the model.
        schedule: Of the learning rate.
        generator: Of batches, samplers and augmentation.
        history: One entry an epoch.
        best: Number of the best epoch so far, from 1; 0: none.
        best_weights: Its state dict, in the computer's own memory.
        scaler: Of the loss, where the model asks for that.
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

    def ended(self, params: TrainParams) -> bool:
        """Whether all epochs are done, or `patience` of them went without a better one."""
        done = len(self.history)
        return done >= params.epochs or done - self.best >= params.patience

    def add(self, epoch: Epoch, monitor: str) -> None:
        """Note an epoch, and keep the weights if it is the best so far."""
        best = self.history[self.best - 1].scores[monitor] if self.best else -math.inf
        self.history.append(epoch)
        if epoch.scores[monitor] > best:
            self.best = epoch.epoch
            # A device's memory is for what is computed with.
            state = self.model.state_dict()
            self.best_weights = {name: value.to("cpu", copy=True) for name, value in state.items()}


class Watcher(Protocol):
    """Whoever wants to know how far a training is."""

    def begin(self, training: Training) -> None:
        """Before the first epoch; may put the training where an earlier process left it."""

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """After each epoch."""
