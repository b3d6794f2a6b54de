"""Votes of a run's test rows, as sums by seed and cluster from which all scores follow.

The sums of an utterance are 1, its scores (`pipeline.metrics.votes.VOTE_SCORES`), and by class
whether naming it was a hit, a false alarm or a miss: M = 1 + 6 + 3 K numbers.

Shapes: R test rows of all seeds and folds, U test utterances, S seeds, F folds, C clusters, K
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.evaluation.rows import Flags, Ints, RunRows
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.metrics.classes import Floats
from pipeline.metrics.votes import (
    LEAST,
    VOTE_SCORES,
    Named,
    multilabel_counts,
    multilabel_macro_f1,
    named,
    vote_scores,
)

MULTILABEL = "multilabel_macro_f1"
OF_VOTES = (*VOTE_SCORES, MULTILABEL)
"""Names of all scores of votes."""


@dataclass(frozen=True)
class VoteRows:
    """Test rows with the votes of each.

    Attributes:
        rows: The rows, with their clusters.
        truth: `[R, K]` shares of the votes, NaN where a row has none.
        predicted: `[R, K]` probabilities, each row with sum 1.
        named: `[R, K]`, the classes that the model names of several at once.
    """

    rows: RunRows
    truth: Floats
    predicted: Floats
    named: Named

    @classmethod
    def of(cls, run: RunFolder, rows: RunRows) -> Self:
        """Collect the votes of the test rows of all jobs."""
        truth = np.concatenate([job.shares[job.test] for job in run.jobs])
        chosen = np.concatenate([job.named[job.test] for job in run.jobs])
        return cls(rows, truth, normalised(rows.probabilities), chosen)

    @property
    def known(self) -> Flags:
        """Which rows have votes, `[R]`."""
        return np.asarray(~np.isnan(self.truth).any(1))

    def sums(self, keep: Flags | None = None, predicted: Floats | None = None) -> Floats:
        """Sums by seed and cluster, `[S, C, M]`.

        Args:
            keep: `[U]` utterances that count; None: all.
            predicted: `[R, K]` to score in place of the model's own.
        """
        rows, clusters = self.rows, self.rows.clusters.number
        kept = self.known if keep is None else self.known & keep[rows.utterance]
        guesses, chosen = self.predicted, self.named
        if predicted is not None:
            guesses, chosen = predicted, named(predicted)
        group = rows.seed[kept] * clusters + rows.cluster[kept]
        scored = (self.truth[kept], guesses[kept], chosen[kept])
        found = vote_sums(*scored, group, rows.seeds * clusters)
        return found.reshape(rows.seeds, clusters, -1)


def job_sums(jobs: Sequence[JobResult], *, test: bool = True) -> Floats:
    """Sums of the test (else validation) rows of each job, `[S * F, M]`."""
    found = []
    for job in jobs:
        keep = (job.test if test else ~job.test) & ~np.isnan(job.shares).any(1)
        group = np.zeros(int(keep.sum()), np.int64)
        scored = (job.shares[keep], normalised(job.probabilities[keep]), job.named[keep])
        found.append(vote_sums(*scored, group, 1))
    return np.concatenate(found)


def vote_statistic(sums: Floats) -> dict[str, Floats]:
    """Scores named in `OF_VOTES`, each `[...]`, from sums `[..., M]`; NaN without rows."""
    count = sums[..., 0]
    some = np.where(count > 0, count, np.nan)
    found = {name: sums[..., 1 + i] / some for i, name in enumerate(VOTE_SCORES)}
    counts = sums[..., 1 + len(VOTE_SCORES) :]
    f1 = multilabel_macro_f1(counts.reshape(*counts.shape[:-1], -1, 3))
    return found | {MULTILABEL: np.where(count > 0, f1, np.nan)}


def normalised(probabilities: Floats) -> Floats:
    """Rows `[N, K]` with sum 1, which those of a file have but for their rounding."""
    return np.asarray(probabilities / probabilities.sum(1, keepdims=True))


def vote_sums(
    truth: Floats, predicted: Floats, chosen: Named, groups: Ints, n_groups: int
) -> Floats:
    """Sums of groups of items, `[G, M]`, of shares, predictions and named classes `[N, K]`."""
    # A probability that was rounded to 0 would make the divergence infinite.
    scores = vote_scores(truth, np.maximum(predicted, LEAST))
    columns = np.stack([np.ones(len(truth)), *(scores[name] for name in VOTE_SCORES)], axis=1)
    sums: Floats = np.zeros((n_groups, columns.shape[1]))
    np.add.at(sums, groups, columns)
    counts = multilabel_counts(named(truth), chosen, groups, n_groups)
    return np.concatenate([sums, counts.reshape(n_groups, -1)], axis=1)
