"""Losses that a protocol names, with what they take from the training split.

Shapes: N utterances, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from features.corpus.manifest import Label
from features.errors import ParamsError
from pipeline.data.targets import TargetReader
from pipeline.model.losses.attributes import CUTS, attribute_loss
from pipeline.model.losses.classes import (
    BalancedCrossEntropy,
    BinaryCrossEntropy,
    Criterion,
    CrossEntropy,
    Focal,
    LogitAdjustedCrossEntropy,
    balanced_weights,
    class_weights,
)
from pipeline.model.losses.tasks import (
    AttributeTask,
    ClassTask,
    GenderTask,
    Loss,
    TaskLoss,
    TaskLosses,
    VoteTask,
)
from pipeline.model.losses.votes import (
    balanced_soft_ce,
    focal,
    kl,
    logit_adjusted,
    multilabel_bce,
    named,
    soft_ce,
    weighted,
)
from pipeline.params.training import FEWEST_ROWS, UNCUT, TrainParams
from pipeline.training.sampling import class_counts

FEW_ROWS = 32  # of a batch with a loss that is no mean over rows


def make_criterion(params: TrainParams, counts: Tensor, classes: Sequence[str] = ()) -> Criterion:
    """The loss of classes.

    Args:
        params: The protocol.
        counts: `[K]` labels of each class in the training split.
        classes: Class names, for messages.

    Raises:
        ParamsError: If the loss needs utterances of a class that has none.
    """
    if params.mixup > 0:  # labels are shares then, with a binary loss for each class
        weights = class_weights(counts) if params.loss.startswith("weighted") else None
        return BinaryCrossEntropy(weights, params.label_smoothing, _focal(params))
    smoothing = params.label_smoothing
    if params.loss == "balanced_ce":
        _check_mass(params.loss, counts, classes)
        weights = balanced_weights(counts, int(counts.sum())).float()
        return BalancedCrossEntropy(weights, smoothing)
    if params.loss == "logit_adjusted_ce":
        _check_mass(params.loss, counts, classes)
        return LogitAdjustedCrossEntropy(counts / counts.sum(), smoothing=smoothing)
    weights = class_weights(counts) if params.loss.startswith("weighted") else None
    of_focal = _focal(params)
    if of_focal is not None:
        return Focal(*of_focal, weights, smoothing)
    return CrossEntropy(weights, smoothing)


def criterion_of(
    params: TrainParams,
    train: Sequence[Label],
    classes: Sequence[str],
    reader: TargetReader | None = None,
    gather: Callable[[Any], list[Any]] | None = None,
) -> Criterion:
    """The loss of a training.

    Args:
        params: The protocol.
        train: Training split.
        classes: Class names.
        reader: What is learnt; None: classes alone.
        gather: From a value of this process to those of all that train together.

    Raises:
        ParamsError: If a loss needs utterances of a class that has none.
    """
    if reader is None:
        counts = torch.from_numpy(class_counts(train, classes))
        return make_criterion(params, counts, classes)
    tasks = [_task(each, params, reader, train) for each in reader.tasks]
    return TaskLosses(tasks, {task.name: params.weight(task.name) for task in tasks}, gather)


def few_rows(params: TrainParams, rows: float) -> str:
    """Refuse batches with too few rows for a loss that is no mean over them.

    Over batches of n rows the mean of the CCC of a model whose own is .67 is .32 at n = 2, .59 at
    8, .65 at 32, with standard deviations of .48, .22 and .10.

    Args:
        params: The protocol.
        rows: Rows of a batch on average.

    Returns:
        A warning about few rows; empty: there are enough.

    Raises:
        ParamsError: If there are fewer than 8.
    """
    if "attributes" not in params.targets or params.attribute_loss not in UNCUT:
        return ""
    given = f"train.batch_size: {params.batch_size} gives about {rows:.1f} rows a batch"
    if rows < FEWEST_ROWS:
        raise ParamsError(
            f"{given} with `attribute_loss: {params.attribute_loss}`, whose gradient would be "
            f"mostly noise; expected at least {FEWEST_ROWS} (better {FEW_ROWS}): raise it, or set "
            "`attribute_loss: mse`"
        )
    if rows >= FEW_ROWS:
        return ""
    return (
        f"{given}; the loss {params.attribute_loss!r} of so few is noisy, and not to be compared "
        f"with that of {FEW_ROWS} or more"
    )


def uncut_reason(params: TrainParams, criterion: Criterion) -> str:
    """Why batches of a training must not be cut, for a message; empty: they may be."""
    if criterion.cuts:
        return ""
    return (
        f"`attribute_loss: {params.attribute_loss}` is no mean over rows, so that parts would have "
        "another loss; set a smaller `batch_size` (with a larger `accumulate`), or "
        "`attribute_loss: mse`"
    )


def _task(name: str, params: TrainParams, reader: TargetReader, train: Sequence[Label]) -> TaskLoss:
    outputs = reader.outputs
    if name == "classes":
        with_class = [label for label in train if label.label is not None]
        counts = torch.from_numpy(class_counts(with_class, outputs.classes))
        return ClassTask(outputs, make_criterion(params, counts, outputs.classes))
    if name == "votes":
        loss = _vote_loss(params, torch.from_numpy(reader.votes(train)), outputs.classes)
        return VoteTask(outputs, loss, params.label_smoothing)
    if name == "attributes":
        chosen = params.attribute_loss
        return AttributeTask(outputs, partial(attribute_loss, chosen), cuts=CUTS[chosen])
    return GenderTask(outputs)


def _vote_loss(params: TrainParams, shares: Tensor, classes: Sequence[str]) -> Loss:
    """The loss of votes, by the shares `[N, K]` of the training split; NaN rows have none."""
    plain: dict[str, Loss] = {"soft_ce": soft_ce, "kl": kl, "multilabel_bce": multilabel_bce}
    if params.vote_loss in plain:
        return plain[params.vote_loss]
    if params.vote_loss == "focal":
        return partial(focal, alpha=params.focal_alpha, gamma=params.focal_gamma)
    shares = shares[~shares.isnan().any(1)]
    if params.vote_loss == "logit_adjusted":
        prior = shares.mean(0)
        _check_mass(params.vote_loss, prior, classes)
        return _OnDevice(logit_adjusted, prior.float())
    # Items that name a class, as many raters' choices would hide how few they are.
    counts = named(shares).sum(0)
    _check_mass(params.vote_loss, counts, classes)
    weights = balanced_weights(counts, len(shares)).float()
    chosen = balanced_soft_ce if params.vote_loss == "balanced_soft_ce" else weighted
    return _OnDevice(chosen, weights)


class _OnDevice:
    """A loss with numbers by class, on the device of the outputs."""

    def __init__(self, loss: Callable[[Tensor, Tensor, Tensor], Tensor], numbers: Tensor) -> None:
        self.loss, self.numbers = loss, numbers

    def __call__(self, logits: Tensor, shares: Tensor) -> Tensor:
        return self.loss(logits, shares, self.numbers.to(logits.device))


def _focal(params: TrainParams) -> tuple[float, float] | None:
    return (params.focal_alpha, params.focal_gamma) if params.loss.endswith("focal") else None


def _check_mass(loss: str, mass: Tensor, classes: Sequence[str]) -> None:
    """Refuse weights of classes that nothing in the training split is about."""
    empty = np.flatnonzero((mass <= 0).numpy()).tolist()
    if empty:
        named = [classes[number] for number in empty] if classes else empty
        raise ParamsError(
            f"train: the loss {loss!r} weights classes by their share of the training split, "
            f"which has nothing of {named}; expected something of each: take another loss, or "
            "leave these classes out of the corpus"
        )
