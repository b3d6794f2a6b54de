"""Classification losses of logits `[N, K]` and labels: `[N]` classes or `[N, K]` shares.

Sources: weights N/n_c, focal (alpha 0.5, gamma 2) and binary cross-entropy for mixup are those of
arXiv 2506.02088 and its public code; focal loss: arXiv 1708.02002, equation 5; label smoothing:
arXiv 1512.00567, section 7; weights by effective number: arXiv 1901.05555, equation 3; logit
adjustment: arXiv 2007.07314, equation 10.

Shapes: N items, K classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.model.outputs import Outputs


def class_weights(counts: Tensor) -> Tensor:
    """Weights N / n_c by class, `[K]` float32, not normalised; an empty class counts as one item.

    >>> import torch
    >>> class_weights(torch.tensor([6, 2, 0])).tolist()
    [1.3333333730697632, 4.0, 8.0]
    """
    return (counts.sum() / counts.clamp(min=1)).float()


def balanced_weights(counts: Tensor, items: int, beta: float | None = None) -> Tensor:
    """Weights (1 - beta) / (1 - beta^n_c) by class, scaled to sum K: `[K]` float64.

    Args:
        counts: `[K]` items n_c of each class: with votes, those whose share is above 1 / K.
        items: Number of items N.
        beta: None: (N - 1) / N.

    Raises:
        ValueError: If a class has no item: its weight would be infinite.

    >>> balanced_weights(torch.tensor([6, 2]), 8).round(decimals=3).tolist()
    [0.597, 1.403]
    """
    numbers = counts.double()
    if (numbers < 1).any():
        raise ValueError(f"counts of classes are {counts.tolist()}; expected at least 1 of each")
    beta = (items - 1) / items if beta is None else beta
    if beta == 0:
        return torch.ones_like(numbers)
    # 1 - beta^n loses its digits for beta near 1.
    effective = -torch.expm1(numbers * math.log(beta))
    weights = (1 - beta) / effective
    return weights * (len(numbers) / weights.sum())


class Criterion(nn.Module):
    """Base of the losses: class weights, label smoothing, and the divisor of the mean.

    Args:
        weights: `[K]` factor of each class; None: all 1.
        smoothing: Share of every label that is spread evenly over the classes.

    Attributes:
        cuts: Whether the loss of a batch is a mean of that of its parts, so that what does not fit
            a device may be computed in parts.
        outputs: Columns of the logits where they are not classes alone.
    """

    weights: Tensor | None
    cuts: bool = True
    outputs: Outputs | None = None

    def __init__(self, weights: Tensor | None = None, smoothing: float = 0.0) -> None:
        super().__init__()
        # They belong to the training protocol, so the model's checkpoint must not hold them.
        self.register_buffer("weights", weights, persistent=False)
        self.smoothing = smoothing

    def size(self, labels: Any) -> float:
        """Divisor of the mean over these labels; means are added up weighted by it."""
        return float(len(labels))

    def shares(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Labels as probabilities `[N, K]`: (1 - smoothing) y + smoothing / K."""
        classes = logits.shape[1]
        soft = labels if labels.ndim == 2 else F.one_hot(labels, classes)
        return soft.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / classes


class CrossEntropy(Criterion):
    """Cross-entropy in nats: sum_n w_n (-log p_n) / sum_n w_n, w_n the weight of label n."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        return F.cross_entropy(logits, labels, self.weights, label_smoothing=self.smoothing)

    def size(self, labels: Any) -> float:
        """The number of labels, or the sum of their weights."""
        # torch divides a weighted mean by this sum, with label smoothing as well.
        return float(len(labels) if self.weights is None else self.weights[labels].sum())


class BalancedCrossEntropy(Criterion):
    """Class-balanced cross-entropy: the mean over N of w_n (-log p_n).

    Weights (`balanced_weights`) do not enter the divisor, other than in `CrossEntropy`.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        soft = self.shares(logits, labels)
        terms = -(soft * logits.log_softmax(1)).sum(1)
        own = soft if labels.ndim == 2 else F.one_hot(labels, logits.shape[1])
        return (terms if self.weights is None else terms * (own * self.weights).sum(1)).mean()


class LogitAdjustedCrossEntropy(Criterion):
    """Cross-entropy of logits + tau log prior; nothing is added when the model predicts.

    Args:
        prior: `[K]` shares of the classes in the training split, all above 0.
        tau: Factor of the log prior.
        smoothing: Share of every label that is spread evenly over the classes.
    """

    adjustment: Tensor

    def __init__(self, prior: Tensor, tau: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__(None, smoothing)
        if (prior <= 0).any():
            raise ValueError(f"prior is {prior.tolist()}; expected shares above 0")
        self.register_buffer("adjustment", tau * prior.log(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        adjusted = (logits + self.adjustment.to(logits.dtype)).log_softmax(1)
        return -(self.shares(logits, labels) * adjusted).sum(1).mean()


class Focal(Criterion):
    """Focal loss: the mean over N of -alpha w_c (1 - p_c)^gamma log p_c.

    There is one alpha for all classes, as in the public code. Weights do not enter the divisor.
    """

    def __init__(
        self, alpha: float, gamma: float, weights: Tensor | None = None, smoothing: float = 0.0
    ) -> None:
        super().__init__(weights, smoothing)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        logs = logits.log_softmax(1)
        # Of one-hot labels only the term of the true class remains.
        terms = -self.alpha * (1 - logs.exp()) ** self.gamma * logs * self.shares(logits, labels)
        # The public code takes the mean over N K values, so that its loss is 1 / K of this one.
        return (terms if self.weights is None else terms * self.weights).sum(1).mean()


class BinaryCrossEntropy(Criterion):
    """Binary cross-entropy of each class, for the soft labels of mixup: the mean over N K values.

    Args:
        weights: `[K]` factor of each class.
        smoothing: Share of every label that is spread evenly over the classes.
        focal: (alpha, gamma) of the binary focal loss, alpha for the class itself, 1 - alpha for
            its absence; None: without.
    """

    def __init__(
        self,
        weights: Tensor | None = None,
        smoothing: float = 0.0,
        focal: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(weights, smoothing)
        self.focal = focal

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        shares = self.shares(logits, labels)
        # log(1 - sigmoid(x)) = logsigmoid(-x), which does not underflow.
        present, absent = shares * F.logsigmoid(logits), (1 - shares) * F.logsigmoid(-logits)
        if self.focal is not None:
            alpha, gamma = self.focal
            p = logits.sigmoid()
            present, absent = alpha * (1 - p) ** gamma * present, (1 - alpha) * p**gamma * absent
        terms = -(present + absent)
        return (terms if self.weights is None else terms * self.weights).mean()
