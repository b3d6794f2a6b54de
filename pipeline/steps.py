"""Optimiser steps: some batches forward and backward, then one update; the same in both regimes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from features.errors import HeronryError
from pipeline.batch import Batch
from pipeline.fusion._model import FusionModel
from pipeline.train_params import TrainParams
from pipeline.training_state import Training


class Micro(NamedTuple):
    """What a batch adds to an optimiser step.

    Attributes:
        loss: Its mean.
        size: What that mean is over.
    """

    loss: float
    size: float


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
        fused=True if device_of(model).type == "cuda" else None,
    )


def micro_step(training: Training, batch: Batch) -> Micro:
    """One batch forward and backward, on the device that it is on.

    Gradients add up, each batch's mean weighed by its size, until `update` divides them.

    Raises:
        HeronryError: If the loss is not finite.
    """
    model = training.model
    prediction = model(batch)
    loss = model.loss(prediction, batch)
    _check(loss.detach(), batch.ids)
    size = model.criterion.size(scored(batch, prediction.logits)[1])
    training.scaler.scale(loss * size).backward()  # type: ignore[no-untyped-call]
    return Micro(float(loss.detach()), size)


def update(training: Training, size: float, clip_norm: float) -> None:
    """One step of the optimiser, by the mean gradient of what was scored.

    Args:
        training: With the gradients of some batches.
        size: Sum of their sizes.
        clip_norm: Largest norm of the gradient.
    """
    training.scaler.unscale_(training.optimizer)
    parameters = list(training.model.parameters())
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(size)
    torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    for group in training.optimizer.param_groups:
        group["lr"] = training.schedule.rate * group.get("lr_scale", 1.0)
    training.scaler.step(training.optimizer)
    training.scaler.update()
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


def _check(loss: Tensor, ids: Sequence[str]) -> None:
    if not bool(torch.isfinite(loss)):
        raise HeronryError(
            f"the training loss is {float(loss)} on a batch with utterances {list(ids)[:8]}; "
            "expected a finite number: lower `train.lr`, or look at these utterances' features"
        )
