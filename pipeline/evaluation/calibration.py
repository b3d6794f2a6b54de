"""Calibration of probabilities: proper scores, reliability bins, temperature scaling.

Guo et al., On calibration of modern neural networks (ICML 2017): the expected calibration error
of the top label, and temperature scaling, softmax(log p / T), where T minimises the negative
log-likelihood. T is fitted on the validation rows of each trained model, never on test rows, and
changes no prediction. The validation split also selected the epoch, so T may be a little too small.

Rows of predictions.csv are divided by their sums, which differ from 1 by rounding. A probability
of 0 (a float32 underflow) counts as 2.2e-16 in a logarithm, as in scikit-learn's `log_loss`.

Shapes: N rows, K classes, B bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from pipeline.evaluation.run_folder import JobResult
from pipeline.metrics.classes import Floats

BINS = 15
FLOOR = float(np.finfo(np.float64).eps)
BOUNDS = (0.05, 20.0)
"""Range in which the temperature is searched."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CalibrationScores:
    """How well probabilities are calibrated, means over seeds; lower is better.

    Attributes:
        nll: Mean negative log-likelihood in nats.
        brier: Mean squared distance to the one-hot label, summed over classes: from 0 to 2.
        ece: Expected calibration error of the top label, bins of equal width.
        ece_adaptive: The same, bins of equally many rows.
    """

    nll: float
    brier: float
    ece: float
    ece_adaptive: float


@dataclass(frozen=True)
class ReliabilityBin:
    """A point of a reliability plot: rows whose top probability lies in (low, high]."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """Calibration of the test probabilities, as predicted and after temperature scaling.

    Attributes:
        before: Scores as predicted.
        after: Scores with the temperature of each job's validation rows; None if some job has none.
        reliability: Bins of equal width as predicted, the rows of all seeds together; bins without
            rows are left out.
        reliability_after: The same after scaling; None where `after` is None.
        reliability_adaptive: Bins of equally many rows as predicted.
        temperatures: Temperature of each job of `run.jobs`, above 1 where the model was
            overconfident; empty where `after` is None.
        at_bound: Number of temperatures at a bound of the search: the validation rows are all
            predicted correctly, or no better than by chance.
        clipped: Number of test rows whose label has probability 0 in predictions.csv.
    """

    before: CalibrationScores
    after: CalibrationScores | None
    reliability: tuple[ReliabilityBin, ...]
    reliability_after: tuple[ReliabilityBin, ...] | None
    reliability_adaptive: tuple[ReliabilityBin, ...]
    temperatures: tuple[float, ...]
    at_bound: int
    clipped: int


def calibrate(jobs: Sequence[JobResult]) -> Calibration:
    """Calibration of the test rows of all jobs; scores are means over seeds."""
    test = [_Predicted.of(job, job.test) for job in jobs]
    temperatures: list[float] = []
    for job in jobs:
        valid = _Predicted.of(job, ~job.test)
        if len(valid.labels):
            temperatures.append(fit_temperature(valid.probabilities, valid.labels))
    whole = _together(test)
    of_labels = whole.probabilities[np.arange(len(whole.labels)), whole.labels]
    after = bins_after = None
    if len(temperatures) == len(jobs):  # otherwise a mean would mix scaled and unscaled models
        scaled = [_scaled(rows, t) for rows, t in zip(test, temperatures, strict=True)]
        after = _seed_mean(jobs, scaled)
        bins_after = reliability(*_together(scaled).top())
    else:
        temperatures = []
    return Calibration(
        before=_seed_mean(jobs, test),
        after=after,
        reliability=reliability(*whole.top()),
        reliability_after=bins_after,
        reliability_adaptive=reliability(*whole.top(), adaptive=True),
        temperatures=tuple(temperatures),
        at_bound=sum(bool(np.isclose(t, BOUNDS, rtol=1e-3).any()) for t in temperatures),
        clipped=int((of_labels == 0).sum()),
    )


def fit_temperature(probabilities: Floats, labels: _Ints) -> float:
    """The temperature within `BOUNDS` that minimises the negative log-likelihood.

    The log-likelihood is concave in 1 / T, so there is one minimum.

    Args:
        probabilities: `[N, K]`, N of 1 or more.
        labels: `[N]`.
    """
    logits = np.log(np.maximum(probabilities, FLOOR))
    rows = np.arange(len(labels))

    def loss(temperature: float) -> float:
        return -float(log_softmax(logits / temperature, axis=1)[rows, labels].mean())

    return _lowest(loss)


def fit_soft_temperature(probabilities: Floats, shares: Floats) -> float:
    """The temperature that minimises the negative log-likelihood of votes, -sum t log q.

    Args:
        probabilities: `[N, K]`, N of 1 or more.
        shares: `[N, K]` shares of the votes.
    """
    logits = np.log(np.maximum(probabilities, FLOOR))

    def loss(temperature: float) -> float:
        return -float((shares * log_softmax(logits / temperature, axis=1)).sum(1).mean())

    return _lowest(loss)


def _lowest(loss: Callable[[float], float]) -> float:
    """Temperature within `BOUNDS` of the lowest loss, which has one minimum."""
    # It takes a third of a second, which readers of finished reports should not wait for.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        # on a logarithmic scale: halving and doubling T are steps of the same size
        lambda log_temperature: loss(np.exp(log_temperature)),
        bounds=tuple(np.log(BOUNDS)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(found.x))


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities `[N, K]` at another temperature; 1 changes nothing."""
    logits = np.log(np.maximum(probabilities, FLOOR)) / temperature
    return np.asarray(softmax(logits, axis=1), np.float64)


def nll(probabilities: Floats, labels: _Ints) -> float:
    """Mean negative log-likelihood in nats, of `[N, K]` and `[N]`."""
    of_labels = probabilities[np.arange(len(labels)), labels]
    return -float(np.log(np.maximum(of_labels, FLOOR)).mean())


def brier(probabilities: Floats, labels: _Ints) -> float:
    """Mean over rows of the squared distance to the one-hot label, summed over classes.

    This is the multi-class form of Brier (1950), from 0 to 2; of two classes it is twice the
    value that the binary form gives.
    """
    wanted = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - wanted) ** 2).sum(1).mean())


def reliability(
    confidence: Floats, correct: Floats, *, adaptive: bool = False, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy of bins (low, high]; those without rows are left out.

    Args:
        confidence: `[N]`, the probability of the predicted class.
        correct: `[N]`, 1 where that class is the label, else 0.
        adaptive: Whether to cut at quantiles of the confidence, so that bins hold equally many rows
            (rows of equal confidence stay together), instead of into equal widths.
        bins: B.
    """
    edges = np.linspace(0, 1, bins + 1)
    if adaptive:
        # this method returns values that occur, so that rows of equal confidence share a bin
        edges = np.quantile(confidence, edges, method="inverted_cdf")
    # "left" puts a row on an edge into the bin below; without the outer edges none falls outside
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    return tuple(
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            confidence=float(confidence[place == k].mean()),
            accuracy=float(correct[place == k].mean()),
            count=int((place == k).sum()),
        )
        for k in np.unique(place)
    )


def expected_error(points: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean |accuracy - confidence| of bins, weighted by rows."""
    total = sum(point.count for point in points)
    return sum(point.count * abs(point.accuracy - point.confidence) for point in points) / total


@dataclass(frozen=True)
class _Predicted:
    """Probabilities `[N, K]` whose rows sum to 1, labels `[N]` and predictions `[N]`."""

    probabilities: Floats
    labels: _Ints
    predictions: _Ints

    @classmethod
    def of(cls, job: JobResult, keep: NDArray[np.bool_]) -> _Predicted:
        shares = job.probabilities[keep]
        shares = shares / shares.sum(1, keepdims=True)
        return cls(shares, job.labels[keep], job.predictions[keep])

    def top(self) -> tuple[Floats, Floats]:
        """Confidence and correctness of each row."""
        confidence = self.probabilities[np.arange(len(self.labels)), self.predictions]
        return confidence, (self.predictions == self.labels).astype(np.float64)

    def scores(self) -> CalibrationScores:
        return CalibrationScores(
            nll=nll(self.probabilities, self.labels),
            brier=brier(self.probabilities, self.labels),
            ece=expected_error(reliability(*self.top())),
            ece_adaptive=expected_error(reliability(*self.top(), adaptive=True)),
        )


def _scaled(rows: _Predicted, temperature: float) -> _Predicted:
    return _Predicted(scale(rows.probabilities, temperature), rows.labels, rows.predictions)


def _together(parts: Sequence[_Predicted]) -> _Predicted:
    return _Predicted(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.predictions for part in parts]),
    )


def _seed_mean(jobs: Sequence[JobResult], parts: Sequence[_Predicted]) -> CalibrationScores:
    """Scores of each seed, its folds pooled, averaged over seeds."""
    by_seed = [
        _together([part for job, part in zip(jobs, parts, strict=True) if job.seed == seed])
        for seed in dict.fromkeys(job.seed for job in jobs)
    ]
    each = [vars(rows.scores()) for rows in by_seed]
    return CalibrationScores(**{name: float(np.mean([e[name] for e in each])) for name in each[0]})
