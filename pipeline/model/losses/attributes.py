"""Regression losses of attributes: 1 - CCC, squared, absolute and Huber's.

Shapes: N rows, A attributes. `predictions` and `targets` are `[N, A]` on [0, 1]; a NaN target is
unknown, and its prediction gets a gradient of exactly 0. All compute in float32 at least, and give
a scalar.

1 - CCC (Lin, Biometrics 45, 1989, page 255) is no mean over rows: it cannot be cut into parts or
averaged over processes, and small batches give another number than large ones. It fixes mean and
scale of the predictions; Pearson's correlation as a loss would not.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AttributeLoss = Literal["ccc", "mse", "mae", "huber", "ccc_mse"]

EPS = 1e-8
"""Added to the denominator of the CCC, which is 0 for two equal constants."""

HUBER_DELTA = 0.1
"""Error up to which Huber's loss is quadratic, as a share of the scale."""

CUTS: dict[AttributeLoss, bool] = {
    "ccc": False,
    "mse": True,
    "mae": True,
    "huber": True,
    "ccc_mse": False,
}
"""By loss: whether a batch may be cut into parts whose losses are added up."""


def attribute_loss(name: AttributeLoss, predictions: Tensor, targets: Tensor) -> Tensor:
    """The loss of that name."""
    if name == "ccc":
        return ccc(predictions, targets)
    if name == "ccc_mse":
        return ccc(predictions, targets) + pointwise("mse", predictions, targets)
    return pointwise(name, predictions, targets)


def learnable(name: AttributeLoss, targets: Tensor) -> Tensor:
    """Which attributes `[A]` have the rows that the loss needs: two for a CCC, else one.

    Without any, the loss is 0 and has no gradient: a batch to count as skipped.
    """
    return (~targets.isnan()).sum(0) >= (1 if CUTS[name] else 2)


def ccc(predictions: Tensor, targets: Tensor, eps: float = EPS) -> Tensor:
    """Mean over attributes of 1 - CCC; those with fewer than two known rows are left out.

    A constant prediction has loss 1 and a gradient that is finite and not 0, since no correlation
    is computed. Without any attribute to learn the loss is 0.
    """
    x, y, known = _known(predictions, targets)
    enough = learnable("ccc", targets)
    terms = _one_minus_ccc(x, y, known, eps)
    return terms.where(enough, 0.0).sum() / enough.sum().clamp(min=1)


def ccc_terms(predictions: Tensor, targets: Tensor, eps: float = EPS) -> Tensor:
    """1 - CCC of each attribute, `[A]`; 1 for one with fewer than two known rows."""
    return _one_minus_ccc(*_known(predictions, targets), eps)


def pointwise(name: Literal["mse", "mae", "huber"], predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over all known pairs of row and attribute; 0 if there is none.

    Huber's loss is e^2 / 2 for errors up to delta, and delta (|e| - delta / 2) above.
    """
    x, y, known = _known(predictions, targets)
    if name == "mse":
        terms = (x - y) ** 2
    elif name == "mae":
        terms = (x - y).abs()
    else:
        terms = F.huber_loss(x, y, reduction="none", delta=HUBER_DELTA)
    return terms.sum() / known.sum().clamp(min=1)


def _known(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions and targets, 0 in both where the target is unknown, and a mask of the others."""
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    known = ~targets.isnan()
    x, y = predictions.to(dtype), targets.to(dtype)
    return x.where(known, 0.0), y.where(known, 0.0), known


def _one_minus_ccc(x: Tensor, y: Tensor, known: Tensor, eps: float) -> Tensor:
    count = known.sum(0).clamp(min=1)
    mean_x, mean_y = x.sum(0) / count, y.sum(0) / count
    # Centred first: differences of sums of squares would lose digits in float32.
    own, true = (x - mean_x).where(known, 0.0), (y - mean_y).where(known, 0.0)
    covariance = (own * true).sum(0) / count
    spread = (own**2).sum(0) / count + (true**2).sum(0) / count
    return 1 - 2 * covariance / (spread + (mean_x - mean_y) ** 2 + eps)
