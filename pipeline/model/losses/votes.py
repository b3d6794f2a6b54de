"""Losses of distributions of raters' votes over classes.

Shapes: N rows, K classes. `logits` z and `shares` t are `[N, K]`, q = softmax(z). Each loss is a
scalar in nats, the mean over rows of what its docstring says, computed in float32 at least.

Sources: effective numbers of a class, arXiv 1901.05555; their product with the whole soft
cross-entropy of an item, EMO-SUPERB (arXiv 2402.13018); logit adjustment, arXiv 2007.07314; focal
loss, arXiv 1708.02002.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

VoteLoss = Literal[
    "soft_ce",
    "kl",
    "balanced_soft_ce",
    "weighted",
    "logit_adjusted",
    "focal",
    "multilabel_bce",
]

_EVEN = 1e-6
"""Distance up to which a share is 1 / K, which smoothing in float32 leaves by a last digit. With R
raters other shares are at least 1 / (K R) away."""


def soft_ce(logits: Tensor, shares: Tensor) -> Tensor:
    """Soft cross-entropy, -sum t log q: the entropy of t more than `kl`."""
    return -(shares * _logs(logits)).sum(1).mean()


def kl(logits: Tensor, shares: Tensor) -> Tensor:
    """KL(t || q) = sum t log(t / q), with 0 log 0 = 0.

    The other direction is infinite where nobody voted, and there is no option for it. Gradients
    are those of `soft_ce`.
    """
    logs = _logs(logits)
    return F.kl_div(logs, shares.to(logs.dtype), reduction="batchmean")


def balanced_soft_ce(logits: Tensor, shares: Tensor, weights: Tensor) -> Tensor:
    """(sum w t) (-sum t log q), not divided by the weights `[K]`: EMO-SUPERB's loss."""
    own = (weights * shares).sum(1)
    return -(own * (shares * _logs(logits)).sum(1)).mean()


def weighted(logits: Tensor, shares: Tensor, weights: Tensor) -> Tensor:
    """-sum w t log q with weights `[K]`: equals `balanced_soft_ce` for one-hot shares alone."""
    return -(weights * shares * _logs(logits)).sum(1).mean()


def logit_adjusted(logits: Tensor, shares: Tensor, prior: Tensor, tau: float = 1.0) -> Tensor:
    """Soft cross-entropy of z + tau log prior, the prior `[K]` of the training split.

    Nothing is added when the model predicts.
    """
    return soft_ce(logits.to(_at_least_float32(logits)) + tau * prior.log(), shares)


def focal(logits: Tensor, shares: Tensor, alpha: float, gamma: float) -> Tensor:
    """-alpha sum t (1 - q)^gamma log q."""
    logs = _logs(logits)
    return -alpha * (shares * (1 - logs.exp()) ** gamma * logs).sum(1).mean()


def multilabel_bce(logits: Tensor, shares: Tensor) -> Tensor:
    """Mean over K of the binary cross-entropy of sigmoid(z) and "t is above 1 / K".

    1 / K is a threshold of the shares. That of the predictions is 0.5, since sigmoids need not
    sum to 1.
    """
    dtype = _at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits.to(dtype), named(shares).to(dtype))


def named(shares: Tensor) -> Tensor:
    """Which classes shares name, `[N, K]`: those above 1 / K, strictly; an even vote names none."""
    return shares > 1 / shares.shape[1] + _EVEN


def smoothed(shares: Tensor, smoothing: float) -> Tensor:
    """(1 - smoothing) t + smoothing / K, as label smoothing does with one class.

    EMO-SUPERB's form, t (1 - e) + (1 - t) e / (K - 1), is that of smoothing e K / (K - 1).
    """
    return shares * (1 - smoothing) + smoothing / shares.shape[1]


def _logs(logits: Tensor) -> Tensor:
    return logits.to(_at_least_float32(logits)).log_softmax(1)


def _at_least_float32(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
