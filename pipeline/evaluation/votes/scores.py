"""Scores of a run's distributions of votes: intervals, baselines, strata, reliability, errors.

All rows with votes count, those without agreement too; scores of items are means over them, all
folds pooled, mean over seeds. Several named emotions are scored by macro F1 over all rows at once:
a mean over batches, as published code takes it, is another number.

Shapes: R test rows of all seeds and folds, U test utterances, S seeds, F folds, K classes, D draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.corpus.manifest import Label
from features.errors import RunError
from pipeline.evaluation.calibration import BINS, fit_soft_temperature, scale
from pipeline.evaluation.labels import vote_shares
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.evaluation.slots import Difference
from pipeline.evaluation.statistics import Draws, cluster_draws
from pipeline.evaluation.summaries import JobScores, Summary, summary_of
from pipeline.evaluation.votes.rows import (
    OF_VOTES,
    VoteRows,
    job_sums,
    normalised,
    vote_statistic,
)
from pipeline.metrics.classes import Floats
from pipeline.metrics.votes import LEAST, entropy_strata, normalised_entropy, vote_scores

MAIN = "jsd"
"""Score that a report opens with: it is bounded, symmetric, and finite for every prediction."""
SHOWN = 20  # utterances of the worst errors
_RATERS = {"1 to 2": 1, "3 to 4": 3, "5 to 6": 5, "7 and over": 7}
"""Smallest number of raters of each group."""


@dataclass(frozen=True)
class VoteStratum:
    """Scores of some of the test utterances."""

    name: str
    rows: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ShareBin:
    """Rows by the predicted share of one class: its mean, and that of the true share."""

    predicted: float
    truth: float
    rows: int


@dataclass(frozen=True)
class ClassReliability:
    """Reliability of the predicted shares of one class; `error` is the mean gap, by rows."""

    name: str
    mean_truth: float
    mean_predicted: float
    error: float
    bins: tuple[ShareBin, ...]


@dataclass(frozen=True)
class SoftTemperature:
    """Temperature scaling by the soft negative log-likelihood of validation rows.

    Attributes:
        each: Temperature of each trained model.
        mean: Their mean.
        before: Soft negative log-likelihood of the test rows as predicted.
        after: The same after scaling.
    """

    each: tuple[float, ...]
    mean: float
    before: float
    after: float


@dataclass(frozen=True)
class VoteError:
    """A test utterance whose distribution is predicted badly; shares by class, largest first."""

    utterance: Label
    jsd: float
    truth: Mapping[str, float]
    predicted: Mapping[str, float]


@dataclass(frozen=True)
class VoteGuess:
    """Scores of a probe or under a condition; `change` of `MAIN` between it and the model."""

    name: str
    scores: Mapping[str, float]
    change: Difference


@dataclass(frozen=True)
class VoteResults:
    """All about the votes of a run.

    Attributes:
        rows: Test utterances with votes.
        scores: Summary by metric.
        prior: Scores of predicting the mean distribution of each fold's training split.
        uniform: Scores of predicting the same share for all classes.
        gain: `MAIN` of the prior minus the model's, so that above 0 is better.
        jobs: Scores and temperature of each trained model.
        valid: Scores of the validation rows, means over trained models.
        entropy: Strata by how much raters disagree.
        raters: Groups by number of raters.
        reliability: Reliability by class.
        temperature: Temperature scaling; None where a model has no validation rows with votes.
        clipped: Rows with votes for a class whose probability is 0 in the file.
        errors: Utterances with the largest divergence.
        probes: Linear probes on each slot.
        conditions: The model under worse conditions.
    """

    rows: int
    scores: Mapping[str, Summary]
    prior: Mapping[str, float]
    uniform: Mapping[str, float]
    gain: Difference
    jobs: tuple[JobScores, ...]
    valid: Mapping[str, float]
    entropy: tuple[VoteStratum, ...]
    raters: tuple[VoteStratum, ...]
    reliability: tuple[ClassReliability, ...]
    temperature: SoftTemperature | None
    clipped: int
    errors: tuple[VoteError, ...]
    probes: tuple[VoteGuess, ...]
    conditions: tuple[VoteGuess, ...]


def vote_results(run: RunFolder, rows: RunRows, labels: Iterable[Label]) -> VoteResults:
    """Score the votes of a run.

    Args:
        run: The run folder, one of whose tasks is "votes".
        rows: Its test rows.
        labels: Labels of the whole corpus, for the distributions of the training splits.

    Raises:
        RunError: If no test utterance has votes.
    """
    data = VoteRows.of(run, rows)
    if not data.known.any():
        raise RunError(
            f"{run.path}: no test utterance has votes; expected some: take `votes` out of "
            "`train.targets`, or another protocol"
        )
    sums = data.sums()
    draws = cluster_draws(sums, vote_statistic)
    values, folds = vote_statistic(sums.sum(1)), vote_statistic(job_sums(run.jobs))
    found = {name: summary_of(values[name], folds[name], draws.interval(name)) for name in OF_VOTES}
    prior = data.sums(predicted=_priors(run, labels))
    even = np.full(data.predicted.shape, 1 / len(run.classes))
    temperature = _temperature(run.jobs, _means(sums.sum(1))["soft_nll"])
    return VoteResults(
        rows=len(set(rows.utterance[data.known])),
        scores={name: each for name, each in found.items() if each is not None},
        prior=_means(prior.sum(1)),
        uniform=_means(data.sums(predicted=even).sum(1)),
        gain=_change(prior, sums, draws),
        jobs=tuple(
            JobScores(
                job.seed,
                job.fold,
                int((~np.isnan(job.shares[job.test]).any(1)).sum()),
                {name: float(folds[name][k]) for name in OF_VOTES if not np.isnan(folds[name][k])},
                temperature.each[k] if temperature else None,
            )
            for k, job in enumerate(run.jobs)
        ),
        valid=_validation(run),
        entropy=_entropy(data),
        raters=_raters(data),
        reliability=_reliability(run, data),
        temperature=temperature,
        clipped=int(((data.truth > 0) & (rows.probabilities <= 0)).any(1).sum()),
        errors=_errors(run, data),
        probes=_guesses(data, sums, draws, "probes"),
        conditions=_guesses(data, sums, draws, "conditions"),
    )


def _means(of_seeds: Floats) -> dict[str, float]:
    """Scores of sums `[S, M]`, means over seeds; those that are defined."""
    found = {name: float(values.mean()) for name, values in vote_statistic(of_seeds).items()}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _change(one: Floats, other: Floats, draws: Draws) -> Difference:
    """`MAIN` of the sums of one minus that of the other, which `draws` belong to."""
    value = _means(one.sum(1))[MAIN] - _means(other.sum(1))[MAIN]
    return Difference(value, cluster_draws(one, vote_statistic).change(MAIN, draws))


def _priors(run: RunFolder, labels: Iterable[Label]) -> Floats:
    """`[R, K]`: mean distribution of the training split of each row's fold; even without votes."""
    priors = np.full((run.folds, len(run.classes)), 1 / len(run.classes))
    used = [label for label in labels if label.id not in run.dropped and label.votes]
    for fold in range(run.folds):
        split = [vote_shares(label, run.classes) for label in used if label.splits[fold] == "train"]
        known = np.array([shares for shares in split if not np.isnan(shares[0])])
        if len(known):
            priors[fold] = known.mean(0)
    return np.concatenate([np.tile(priors[job.fold], (job.test.sum(), 1)) for job in run.jobs])


def _validation(run: RunFolder) -> dict[str, float]:
    means = vote_statistic(job_sums(run.jobs, test=False))
    found = {name: float(means[name].mean()) for name in OF_VOTES}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _entropy(data: VoteRows) -> tuple[VoteStratum, ...]:
    first = _first_rows(data)
    names, strata = entropy_strata(normalised_entropy(data.truth[first]))
    return _strata(data, first, names, strata.tolist())


def _raters(data: VoteRows) -> tuple[VoteStratum, ...]:
    first, starts = _first_rows(data), list(_RATERS.values())
    labels = [data.rows.utterances[u] for u in data.rows.utterance[first]]
    counts = [sum((x.votes or {}).values()) + (x.votes_outside or 0) for x in labels]
    places = [max(int(np.searchsorted(starts, count, side="right")) - 1, 0) for count in counts]
    return _strata(data, first, list(_RATERS), places)


def _strata(
    data: VoteRows, first: Sequence[int], names: Sequence[str], places: Sequence[int]
) -> tuple[VoteStratum, ...]:
    """Scores of groups of utterances, given one row of each and its group."""
    found = []
    for k, name in enumerate(names):
        keep = np.zeros(len(data.rows.utterances), bool)
        keep[[data.rows.utterance[row] for row, p in zip(first, places, strict=True) if p == k]] = (
            True
        )
        if keep.any():
            found.append(VoteStratum(name, int(keep.sum()), _means(data.sums(keep).sum(1))))
    return tuple(found)


def _first_rows(data: VoteRows) -> list[int]:
    """One row of each utterance with votes: truth is the same in all of them."""
    _, first = np.unique(data.rows.utterance, return_index=True)
    return [int(row) for row in first if data.known[row]]


def _reliability(run: RunFolder, data: VoteRows) -> tuple[ClassReliability, ...]:
    truth, predicted = data.truth[data.known], data.predicted[data.known]
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    found = []
    for k, name in enumerate(run.classes):
        place = np.searchsorted(edges, predicted[:, k], side="left")
        bins = tuple(
            ShareBin(
                float(predicted[place == b, k].mean()),
                float(truth[place == b, k].mean()),
                int((place == b).sum()),
            )
            for b in np.unique(place)
        )
        error = sum(each.rows * abs(each.predicted - each.truth) for each in bins) / len(truth)
        means = float(truth[:, k].mean()), float(predicted[:, k].mean())
        found.append(ClassReliability(name, *means, error, bins))
    return tuple(found)


def _temperature(jobs: Sequence[JobResult], before: float) -> SoftTemperature | None:
    temperatures, losses, sizes = [], [], []
    for job in jobs:
        known = ~np.isnan(job.shares).any(1)
        valid, test = known & ~job.test, known & job.test
        if not valid.any():
            return None
        probabilities = normalised(job.probabilities)
        temperature = fit_soft_temperature(probabilities[valid], job.shares[valid])
        scaled = np.maximum(scale(probabilities[test], temperature), LEAST)
        losses.append(vote_scores(job.shares[test], scaled)["soft_nll"].sum())
        sizes.append(int(test.sum()))
        temperatures.append(temperature)
    # Seeds have the same rows, so that this is the mean over seeds too.
    after = float(sum(losses) / sum(sizes))
    return SoftTemperature(tuple(temperatures), float(np.mean(temperatures)), before, after)


def _errors(run: RunFolder, data: VoteRows) -> tuple[VoteError, ...]:
    """Utterances by divergence, mean over seeds, with the mean of what the seeds predict."""
    rows, size, known = data.rows, len(data.rows.utterances), data.known
    times = np.bincount(rows.utterance, minlength=size)
    divergence = np.zeros(len(rows.utterance))
    divergence[known] = vote_scores(data.truth[known], data.predicted[known])["jsd"]
    means = np.bincount(rows.utterance, divergence, minlength=size) / times
    sums: Floats = np.zeros((size, len(run.classes)))
    np.add.at(sums, rows.utterance, data.predicted)
    first = {int(rows.utterance[row]): row for row in _first_rows(data)}
    order = sorted(first, key=lambda u: (-means[u], rows.utterances[u].id))
    return tuple(
        VoteError(
            rows.utterances[u],
            float(means[u]),
            _ranked(run.classes, data.truth[first[u]]),
            _ranked(run.classes, sums[u] / times[u]),
        )
        for u in order[:SHOWN]
    )


def _ranked(classes: Sequence[str], shares: Floats) -> dict[str, float]:
    """The three largest shares, those above 0."""
    order = np.argsort(-shares, kind="stable")[:3]
    return {classes[k]: float(shares[k]) for k in order if shares[k] > 0}


def _guesses(data: VoteRows, own: Floats, draws: Draws, kind: str) -> tuple[VoteGuess, ...]:
    jobs, found = data.rows.jobs, []
    for name in getattr(jobs[0], kind):
        parts = [getattr(job, kind)[name].probabilities for job in jobs]
        if all(part is not None for part in parts):
            sums = data.sums(predicted=normalised(np.concatenate(parts)))
            change = _change(sums, own, draws)
            found.append(VoteGuess(name, _means(sums.sum(1)), change))
    return tuple(found)
