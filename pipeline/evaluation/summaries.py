"""Scores of the whole test split: by metric, by class, by seed, and by trained model.

Shapes: S seeds, F folds, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.statistics import (
    LEAST_CLUSTERS,
    ConfidenceInterval,
    Intervals,
    Scores,
    bootstrap,
)
from pipeline.metrics.classes import (
    MONITORS,
    Counts,
    Floats,
    Matrices,
    class_values,
    confusion,
    f1_names,
    ovr_accuracies,
    ovr_weighted_f1s,
    per_class,
    scores,
)


@dataclass(frozen=True)
class Summary:
    """One metric of the whole test split.

    Attributes:
        value: Mean over seeds, folds pooled.
        interval: Interval of `value`; None for fewer than `LEAST_CLUSTERS` clusters.
        sd: Standard deviation over seeds (of S - 1); None for one seed.
        fold_mean: Mean over seeds and folds of each fold's score; None for one fold.
        fold_sd: Standard deviation over folds (of F - 1) of the mean over seeds; None for one fold.
    """

    value: float
    interval: ConfidenceInterval | None
    sd: float | None
    fold_mean: float | None
    fold_sd: float | None


@dataclass(frozen=True)
class ClassScores:
    """Metrics of one class, means over seeds; `support` is its number of test utterances.

    A class with a support of 0 is absent from the test labels: it has no recall and no F1, does not
    count in UAR, and counts in macro F1, as 0, only if it was predicted.
    """

    name: str
    precision: float
    recall: float | None
    f1: float | None
    f1_interval: ConfidenceInterval | None
    ovr_accuracy: float
    ovr_weighted_f1: float
    support: int


@dataclass(frozen=True)
class SeedScores:
    """Scores of one seed: all folds pooled, and the mean over folds (None for one fold)."""

    seed: int
    utterances: int
    scores: Scores
    fold_mean: Scores | None


@dataclass(frozen=True)
class JobScores:
    """Scores of one trained model, and the temperature fitted on its validation rows."""

    seed: int
    fold: int
    utterances: int
    scores: Scores
    temperature: float | None


@dataclass(frozen=True)
class ClusterScores:
    """Scores of one cluster (speaker or dialogue), means over seeds."""

    name: str
    utterances: int
    scores: Scores


def intervals_of(rows: RunRows) -> Intervals:
    """Intervals by metric and by key of a class's F1; empty below `LEAST_CLUSTERS` clusters."""
    names = f1_names(rows.classes)

    def statistic(of: Matrices) -> dict[str, Floats]:
        return scores(of) | dict(zip(names, np.moveaxis(class_values(of)[1], -1, 0), strict=True))

    return bootstrap(rows.matrices(), statistic)


def cluster_scores(rows: RunRows) -> tuple[ClusterScores, ...]:
    """Scores of each cluster by itself, where they are too few for an interval; else none."""
    if rows.clusters.number >= LEAST_CLUSTERS:
        return ()
    names = [str(getattr(label, rows.clusters.unit)) for label in rows.utterances]
    matrices = rows.matrices()  # clusters in order of name
    return tuple(
        ClusterScores(
            name=name,
            utterances=names.count(name),
            scores={key: float(value.mean()) for key, value in scores(matrices[:, c]).items()},
        )
        for c, name in enumerate(sorted(set(names)))
    )


def job_confusions(run: RunFolder) -> Counts:
    """`[S * F, K, K]` confusion matrices of the test rows of each job; as `RunRows.matrices`."""
    size, abstains = len(run.classes), run.abstains
    each = [
        confusion(j.labels[j.test], j.predictions[j.test], size, abstains=abstains)
        for j in run.jobs
    ]
    return np.stack(each)


def summaries(confusions: Counts, by_job: Counts, intervals: Intervals) -> dict[str, Summary]:
    """Summary of each metric, in order of importance.

    Args:
        confusions: `[S, K, K]` confusion matrices, folds pooled.
        by_job: `[S * F, K, K]` confusion matrices of the jobs.
        intervals: Intervals by metric.
    """
    each, folds = scores(confusions), scores(by_job)
    return {name: _summary(of, folds[name], intervals.get(name)) for name, of in each.items()}


def summary_of(
    of_seeds: Floats, of_jobs: Floats, interval: ConfidenceInterval | None
) -> Summary | None:
    """Summary of a metric that may be undefined, which is NaN; None if it is so for some seed.

    Args:
        of_seeds: `[S]`, folds pooled.
        of_jobs: `[S * F]`, in order of seed, then fold.
        interval: Interval of the mean over seeds, if there is one.
    """
    if np.isnan(of_seeds).any():
        return None
    found = _summary(of_seeds, of_jobs, interval)
    if found.fold_mean is not None and np.isnan(found.fold_mean):
        return replace(found, fold_mean=None, fold_sd=None)
    return found


def _summary(of_seeds: Floats, of_jobs: Floats, interval: ConfidenceInterval | None) -> Summary:
    seeds = len(of_seeds)
    of_folds = of_jobs.reshape(seeds, -1)  # jobs are in order of seed, then fold
    several = of_folds.shape[1] > 1
    return Summary(
        value=float(of_seeds.mean()),
        interval=interval,
        sd=float(of_seeds.std(ddof=1)) if seeds > 1 else None,
        fold_mean=float(of_folds.mean()) if several else None,
        fold_sd=float(of_folds.mean(0).std(ddof=1)) if several else None,
    )


def class_scores(
    run: RunFolder, confusions: Counts, intervals: Intervals
) -> tuple[ClassScores, ...]:
    """Scores of each class; arguments as for `summaries`."""
    found, decisions = per_class(confusions), ovr_accuracies(confusions)
    decided_f1 = ovr_weighted_f1s(confusions)
    recall, f1 = class_values(confusions)
    return tuple(
        ClassScores(
            name=name,
            precision=float(found.precision[:, k].mean()),
            recall=_known(recall[:, k]),
            f1=_known(f1[:, k]),
            f1_interval=intervals.get(key),
            ovr_accuracy=float(decisions[:, k].mean()),
            ovr_weighted_f1=float(decided_f1[:, k].mean()),
            support=int(found.support[0, k]),
        )
        for k, (name, key) in enumerate(zip(run.classes, f1_names(run.classes), strict=True))
    )


def seed_scores(run: RunFolder, confusions: Counts, by_job: Counts) -> tuple[SeedScores, ...]:
    """Scores of each seed; arguments as for `summaries`."""
    folds = {name: of.reshape(len(run.seeds), -1).mean(1) for name, of in scores(by_job).items()}
    return tuple(
        SeedScores(
            seed=seed,
            utterances=int(confusions[rank].sum()),
            scores=_at(scores(confusions), rank),
            fold_mean=_at(folds, rank) if run.folds > 1 else None,
        )
        for rank, seed in enumerate(run.seeds)
    )


def job_scores(
    run: RunFolder, by_job: Counts, calibration: Calibration | None
) -> tuple[JobScores, ...]:
    """Scores of each trained model."""
    known = () if calibration is None else calibration.temperatures
    temperatures = known or [None] * len(run.jobs)
    return tuple(
        JobScores(job.seed, job.fold, int(matrix.sum()), _at(scores(matrix), ()), temperature)
        for job, matrix, temperature in zip(run.jobs, by_job, temperatures, strict=True)
    )


def validation_means(run: RunFolder) -> dict[str, float]:
    """Metrics of the validation rows, means over trained models; empty if one has none.

    They selected the epoch and are too high for that reason, but settings may be compared by them;
    by test scores they may not.
    """
    valid = [(job.labels[~job.test], job.predictions[~job.test]) for job in run.jobs]
    if not all(len(labels) for labels, _ in valid):
        return {}
    size = len(run.classes)
    matrices = np.stack([confusion(*of, size, abstains=run.abstains) for of in valid])
    found = scores(matrices)
    return {name: float(found[name].mean()) for name in MONITORS}


def _known(of_seeds: Floats) -> float | None:
    """Mean over seeds; None where the labels, which all seeds share, lack the class."""
    return None if np.isnan(of_seeds).any() else float(of_seeds.mean())


def _at(values: Mapping[str, Floats], index: int | tuple[()]) -> dict[str, float]:
    return {name: float(of[index]) for name, of in values.items()}
