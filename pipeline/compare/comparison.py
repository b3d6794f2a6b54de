"""Scores, paired differences and tests of two or more runs on the same utterances.

A score is the mean over seeds, all folds pooled, on the rows that all runs predicted
(`pipeline.compare.rows`), as in the report. A difference is the second run's score minus the
first's, so that one above 0 favours the second. Intervals are those of the report, over clusters
(`pipeline.evaluation.statistics`), with the same draws for all runs. p values are those of
`pipeline.compare.significance`, adjusted by Holm's method over the pairs that are compared, each
metric by itself.

Intervals and p generalise to other speakers (or dialogues) with these trained models. What another
training would change is given by `RunScore.sd` alone.

Shapes: U common test rows, S seeds of a run, C clusters, D draws, n swapped units, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from features.corpus.manifest import Label
from pipeline.compare.flips import SHOWN, Flips, flips
from pipeline.compare.rows import CommonRows, Compared, LeftOut
from pipeline.compare.significance import (
    PERMUTATIONS,
    McNemar,
    PermutationTest,
    holm,
    mcnemar,
    permutation_test,
)
from pipeline.evaluation.statistics import ConfidenceInterval, Draws, cluster_draws
from pipeline.metrics.classes import (
    MONITORS,
    Floats,
    Matrices,
    class_values,
    scores,
)


@dataclass(frozen=True)
class RunScore:
    """A metric of one run: mean over seeds, its interval, and sd over seeds (None for one seed)."""

    value: float
    interval: ConfidenceInterval | None
    sd: float | None


@dataclass(frozen=True)
class RunScores:
    """A run and its score by metric; `whose` is fusion, corpus and regime, if its files say so."""

    tag: str
    name: str
    whose: str | None
    seeds: int
    scores: Mapping[str, RunScore]


@dataclass(frozen=True)
class Change:
    """A difference of scores, second minus first run; no interval for too few clusters."""

    first: float
    second: float
    value: float
    interval: ConfidenceInterval | None


@dataclass(frozen=True)
class ClassChange:
    """Change of a class's recall and F1; `support` is the number of its test rows."""

    name: str
    support: int
    recall: Change
    f1: Change


@dataclass(frozen=True)
class Pair:
    """The comparison of two runs.

    Attributes:
        first: Tag of the baseline.
        second: Tag of the run that is compared with it.
        changes: Change of each metric.
        test: Permutation test of each metric.
        p_holm: p of `test` by metric, adjusted over all pairs.
        mcnemar: McNemar's test of the votes of the seeds.
        mcnemar_holm: p of `mcnemar`, adjusted over all pairs.
        classes: Changes of the classes that occur in the common rows, in order.
        flips: Utterances whose vote changed.
    """

    first: str
    second: str
    changes: Mapping[str, Change]
    test: PermutationTest
    p_holm: Mapping[str, float]
    mcnemar: McNemar
    mcnemar_holm: float
    classes: tuple[ClassChange, ...]
    flips: Flips


@dataclass(frozen=True)
class Comparison:
    """The comparison of all runs; the fields are the keys of `compare --json`.

    Attributes:
        utterances: U.
        folds: Number of folds of these rows.
        classes: Names of the K classes.
        unit: "speaker" or "dialogue".
        clusters: C.
        speakers: Number of speakers.
        shared_speakers: Number of speakers in several clusters. If there are any, intervals and p
            hold for other clusters of these speakers, and are too narrow and too small for others.
        runs: Scores of the runs, in the order given.
        pairs: The first run with each other one, or all pairs.
        left_out: Rows that some run lacks or labels otherwise.
    """

    utterances: int
    folds: int
    classes: tuple[str, ...]
    unit: str
    clusters: int
    speakers: int
    shared_speakers: int
    runs: tuple[RunScores, ...]
    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison.

    Attributes:
        all_pairs: Compare every run with every other, not just the first with the others.
        flips: Number of changed utterances to list in each direction.
        permutations: Largest number of permutations.
        seed: Random seed of the permutations; the bootstrap has the draws of the report.
        unit: "speaker" or "dialogue", drawn and swapped as a whole; None: as in the report.
    """

    all_pairs: bool = False
    flips: int = SHOWN
    permutations: int = PERMUTATIONS
    seed: int = 0
    unit: str | None = None


def compare_rows(rows: CommonRows, settings: Settings, labels: Mapping[str, Label]) -> Comparison:
    """Compare runs on their common rows.

    Args:
        rows: The runs on their common rows.
        settings: Settings.
        labels: Labels by id, for the transcripts; may be empty.
    """
    draws = [cluster_draws(run.matrices, _statistic) for run in rows.runs]
    order = range(len(rows.runs))
    chosen = list(combinations(order, 2)) if settings.all_pairs else [(0, k) for k in order[1:]]
    pairs = [
        _pair(rows, (rows.runs[i], rows.runs[j]), (draws[i], draws[j]), settings, labels)
        for i, j in chosen
    ]
    return Comparison(
        utterances=len(rows.items),
        folds=len({item.fold for item in rows.items}),
        classes=rows.classes,
        unit=rows.unit,
        clusters=rows.clusters,
        speakers=rows.speakers,
        shared_speakers=rows.shared_speakers,
        runs=tuple(_scores(run, of) for run, of in zip(rows.runs, draws, strict=True)),
        pairs=_adjusted(pairs),
        left_out=rows.left_out,
    )


def _statistic(matrices: Matrices) -> dict[str, Floats]:
    """Metrics, and recall and F1 of each class, which are NaN where a draw lacks the class."""
    found = _headline(matrices)
    for name, values in zip(("recall", "f1"), class_values(matrices), strict=True):
        found |= {f"{name} {k}": values[..., k] for k in range(matrices.shape[-2])}
    return found


def _headline(matrices: Matrices) -> dict[str, Floats]:
    found = scores(matrices)
    return {name: found[name] for name in MONITORS}


def _scores(run: Compared, draws: Draws) -> RunScores:
    found = {}
    # [S, C, K, K] summed over clusters: one confusion matrix for each seed.
    for name, of_seeds in _headline(run.matrices.sum(1)).items():
        sd = float(of_seeds.std(ddof=1)) if run.seeds > 1 else None
        found[name] = RunScore(float(of_seeds.mean()), draws.interval(name), sd)
    return RunScores(run.tag, run.name, run.whose, run.seeds, found)


def _pair(
    rows: CommonRows,
    runs: tuple[Compared, Compared],
    draws: tuple[Draws, Draws],
    settings: Settings,
    labels: Mapping[str, Label],
) -> Pair:
    totals = [{k: v.mean(-1) for k, v in _statistic(run.matrices.sum(1)).items()} for run in runs]

    def change(name: str) -> Change:
        first, second = (float(of[name]) for of in totals)
        return Change(first, second, second - first, draws[1].change(name, draws[0]))

    support = np.bincount(rows.labels, minlength=len(rows.classes))
    classes = (
        ClassChange(name, int(support[k]), change(f"recall {k}"), change(f"f1 {k}"))
        for k, name in enumerate(rows.classes)
        if support[k]
    )
    averaged = [np.asarray(run.matrices.mean(0)) for run in runs]
    test = permutation_test(
        *((averaged[0], averaged[1]), _headline, rows.unit),
        permutations=settings.permutations,
        seed=settings.seed,
    )
    right = [run.votes == rows.labels for run in runs]
    exact = mcnemar(*right)
    return Pair(
        first=runs[0].tag,
        second=runs[1].tag,
        changes={name: change(name) for name in MONITORS},
        test=test,
        # Not adjusted yet: Holm's method needs the p of all pairs (`_adjusted`).
        p_holm=test.p,
        mcnemar=exact,
        mcnemar_holm=exact.p,
        classes=tuple(classes),
        flips=flips(rows, runs, labels, shown=settings.flips),
    )


def _adjusted(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    metrics = {name: holm([pair.test.p[name] for pair in pairs]) for name in MONITORS}
    exact = holm([pair.mcnemar.p for pair in pairs])
    return tuple(
        replace(
            pair,
            p_holm={name: values[k] for name, values in metrics.items()},
            mcnemar_holm=exact[k],
        )
        for k, pair in enumerate(pairs)
    )
