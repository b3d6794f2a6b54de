"""The training loop: one model, one seed, one fold.

The kept epoch is the one with the best `monitor` on the *validation* split. The test split is not
among the arguments, so it cannot be selected on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.errors import HeronryError
from features.manifest import Label
from pipeline.data import Examples, ordered_batches, shuffled_batches
from pipeline.fusion._model import FusionModel
from pipeline.metrics import validation_scores
from pipeline.params import TrainParams

EVALUATION_BATCH = 64  # utterances; changes no number beyond float rounding
PLATEAU_FACTOR = 0.5
PLATEAU_PATIENCE = 2  # epochs


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: From 1.
        lr: Learning rate in that epoch.
        train_loss: Mean loss over the training split, dropout on.
        valid_loss: Mean loss over the validation split.
        scores: Metrics of the validation split by name.
    """

    epoch: int
    lr: float
    train_loss: float
    valid_loss: float
    scores: dict[str, float]


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
    examples: Examples,
    *,
    train: Sequence[Label],
    valid: Sequence[Label],
    params: TrainParams,
    seed: int,
    tell: Callable[[Epoch], None] = lambda _: None,
) -> Fitted:
    """Train `model` in place, and leave it with the weights of its best validation epoch.

    Args:
        model: Freshly made.
        examples: Where the features come from.
        train: Training split.
        valid: Validation split.
        params: The protocol.
        seed: Of the order of batches; dropout draws from torch's global generator, which the
            caller has seeded.
        tell: Called after each epoch.

    Raises:
        HeronryError: If the loss is not finite, naming the utterances of the batch.
    """
    optimizer = make_optimizer(model, params)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE
    )
    generator = np.random.default_rng(seed)
    history: list[Epoch] = []
    best, best_score, best_state = 0, -math.inf, model.state_dict()
    for number in range(1, params.epochs + 1):
        rate = optimizer.param_groups[0]["lr"]
        train_loss = _train_epoch(model, examples, train, params, optimizer, generator)
        scored = evaluate(model, examples, valid)
        truth = _truth(examples, valid)
        scores = validation_scores(truth, scored.probabilities.argmax(1), len(examples.classes))
        history.append(Epoch(number, rate, train_loss, scored.loss, scores))
        tell(history[-1])
        if scores[params.monitor] > best_score:
            best, best_score = number, scores[params.monitor]
            best_state = copy.deepcopy(model.state_dict())
        elif number - best >= params.patience:
            break
        if params.schedule == "plateau":
            plateau.step(scored.loss)
    model.load_state_dict(best_state)
    return Fitted(history, best)


@torch.inference_mode()
def evaluate(model: FusionModel, examples: Examples, labels: Sequence[Label]) -> Scored:
    """Probabilities and loss of some utterances, in eval mode."""
    model.eval()
    device = _device(model)
    rows: list[NDArray[np.float64]] = [np.empty(0)] * len(labels)
    total = 0.0
    for places, batch in ordered_batches(examples, labels, EVALUATION_BATCH):
        moved = batch.to(device)
        prediction = model(moved)
        total += float(model.loss(prediction, moved)) * len(places)
        probabilities = prediction.logits.double().softmax(1).cpu().numpy()
        for place, row in zip(places, probabilities, strict=True):
            rows[place] = row
    return Scored(np.stack(rows), total / len(labels))


def make_optimizer(model: FusionModel, params: TrainParams) -> torch.optim.Optimizer:
    """The optimiser that the protocol names, over all parameters."""
    kinds: dict[str, type[torch.optim.AdamW | torch.optim.Adam]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
    }
    return kinds[params.optimizer](
        model.parameters(), lr=params.lr, weight_decay=params.weight_decay
    )


def _train_epoch(
    model: FusionModel,
    examples: Examples,
    labels: Sequence[Label],
    params: TrainParams,
    optimizer: torch.optim.Optimizer,
    generator: np.random.Generator,
) -> float:
    """One pass; a step each `accumulate` batches, its gradient the mean over their utterances."""
    model.train()
    device = _device(model)
    total, pending = 0.0, 0
    batches = shuffled_batches(examples, labels, params.batch_size, generator)
    last = math.ceil(len(labels) / params.batch_size)
    for number, batch in enumerate(batches, 1):
        moved = batch.to(device)
        size = len(batch.ids)
        loss = model.loss(model(moved), moved)
        _check(loss.detach(), batch.ids)
        (loss * size).backward()  # type: ignore[no-untyped-call]
        total, pending = total + float(loss.detach()) * size, pending + size
        if number % params.accumulate == 0 or number == last:
            _step(model, optimizer, pending, params.clip_norm)
            pending = 0
    return total / len(labels)


def _step(
    model: FusionModel, optimizer: torch.optim.Optimizer, utterances: int, clip_norm: float
) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.div_(utterances)
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _check(loss: Tensor, ids: Sequence[str]) -> None:
    if not bool(torch.isfinite(loss)):
        raise HeronryError(
            f"the training loss is {float(loss)} on a batch with utterances {list(ids)[:8]}; "
            "expected a finite number: lower `train.lr`, or look at these utterances' features"
        )


def _truth(examples: Examples, labels: Sequence[Label]) -> NDArray[np.int64]:
    return np.array([examples.classes.index(label.label) for label in labels], np.int64)


def _device(model: FusionModel) -> torch.device:
    return next(model.parameters()).device
