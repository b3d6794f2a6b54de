"""Attributes of a run's test rows, as sums by seed and cluster from which all scores follow.

Shapes: R test rows of all seeds and folds, U test utterances, S seeds, F folds, C clusters, A
attributes, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.rows import Flags, RunRows
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.evaluation.statistics import Draws, cluster_draws
from pipeline.metrics.attributes import SCORES, SUMS, attribute_scores, attribute_sums
from pipeline.metrics.classes import Floats


@dataclass(frozen=True)
class AttributeRows:
    """Test rows with the attributes of each.

    Attributes:
        rows: The rows, with their clusters.
        names: A names.
        scales: `[A, 2]`, lowest and highest values.
        truth: `[R, A]`, NaN where unknown.
        prediction: `[R, A]`.
    """

    rows: RunRows
    names: tuple[str, ...]
    scales: Floats
    truth: Floats
    prediction: Floats

    @classmethod
    def of(cls, run: RunFolder, rows: RunRows) -> AttributeRows:
        """Collect the attributes of the test rows of all jobs."""
        scales = np.array(list(run.targets.scales.values()), np.float64)
        truth = np.concatenate([job.truth[job.test] for job in run.jobs])
        values = np.concatenate([job.values[job.test] for job in run.jobs])
        return cls(rows, tuple(run.targets.scales), scales, truth, values)

    @property
    def middles(self) -> Floats:
        """Middles of the scales, `[A]`."""
        return np.asarray(self.scales.mean(1))

    def sums(self, keep: Flags | None = None, prediction: Floats | None = None) -> Floats:
        """Sums by seed and cluster, `[S, C, A, 7]`.

        Args:
            keep: `[U]` utterances that count; None: all.
            prediction: `[R, A]` to score in place of the model's own.
        """
        rows, clusters = self.rows, self.rows.clusters.number
        kept = np.ones(len(rows.utterance), bool) if keep is None else keep[rows.utterance]
        guesses = self.prediction if prediction is None else prediction
        found = attribute_sums(
            self.truth[kept],
            guesses[kept],
            rows.seed[kept] * clusters + rows.cluster[kept],
            rows.seeds * clusters,
            self.middles,
        )
        return found.reshape(rows.seeds, clusters, len(self.names), len(SUMS))

    def job_sums(self, jobs: Sequence[JobResult], *, test: bool = True) -> Floats:
        """Sums of the test (else validation) rows of each job, `[S * F, A, 7]`."""
        found = []
        for job in jobs:
            keep = job.test if test else ~job.test
            group = np.zeros(int(keep.sum()), np.int64)
            found.append(attribute_sums(job.truth[keep], job.values[keep], group, 1, self.middles))
        return np.concatenate(found)

    def statistic(self, sums: Floats) -> dict[str, Floats]:
        """Scores of sums `[..., A, 7]` by name: `ccc`, and `<metric>_<attribute>`; `[...]`."""
        scores = attribute_scores(sums)
        found = {"ccc": np.asarray(scores["ccc"].mean(-1))}
        for metric in SCORES:
            found |= {f"{metric}_{a}": scores[metric][..., k] for k, a in enumerate(self.names)}
        return found


def draws_of(data: AttributeRows, sums: Floats) -> Draws:
    """All scores in each draw."""
    return cluster_draws(sums, data.statistic)


def first_rows(rows: RunRows) -> np.ndarray:
    """Index of one row of each utterance, `[U]`: truth is the same in all of them."""
    _, first = np.unique(rows.utterance, return_index=True)
    return first


def seed_mean(of_seeds: Floats) -> float:
    """Mean of `[S]`; NaN if a seed is."""
    return float(of_seeds.mean())


def defined(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are not NaN."""
    return {name: value for name, value in values.items() if not np.isnan(value)}
