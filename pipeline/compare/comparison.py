"""Computes a comparison of runs: what the numbers are is told by `pipeline.compare.comparison`.

Legend: U common test rows, S seeds of a run, C clusters, D draws, n swapped units, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from features.corpus.manifest import Label
from pipeline.compare.flips import SHOWN, Flips, flips
from pipeline.compare.rows import CommonRows, Compared, LeftOut, common_rows
from pipeline.compare.significance import (
    FEWEST,
    PERMUTATIONS,
    McNemar,
    PermutationTest,
    holm,
    mcnemar,
    permutation_test,
)
from pipeline.compare.sources import known_labels, read_run
from pipeline.evaluation.statistics import ConfidenceInterval, percentile_interval, resample
from pipeline.metrics import MONITORS, Floats, Matrices, class_values, grouped_confusion, scores


@dataclass(frozen=True)
class RunScore:
    """One metric: mean over seeds, its interval, and the sd over seeds (None for one seed)."""

    value: float
    interval: ConfidenceInterval | None
    sd: float | None


@dataclass(frozen=True)
class RunScores:
    """A run, whose it is (None where its files do not say), and its scores by metric."""

    tag: str
    name: str
    whose: str | None
    seeds: int
    scores: Mapping[str, RunScore]


@dataclass(frozen=True)
class Change:
    """A difference, second minus first run.

    Attributes:
        first: Score of the first run.
        second: Score of the second run.
        value: Their difference.
        interval: Of `value`; None for fewer than two clusters.
    """

    first: float
    second: float
    value: float
    interval: ConfidenceInterval | None


@dataclass(frozen=True)
class ClassChange:
    """One class: its test rows, and how its recall and F1 change."""

    name: str
    support: int
    recall: Change
    f1: Change


@dataclass(frozen=True)
class Pair:
    """Two runs.

    Attributes:
        first: Tag of the run that is compared with.
        second: Tag of the run whose gain is told.
        changes: By metric.
        test: Permutation test of each metric.
        p_holm: By metric, p of `test` adjusted over all pairs.
        mcnemar: Of the votes of the seeds.
        mcnemar_holm: Its p, adjusted over all pairs.
        classes: Those of the common rows, in order.
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
    """All that is said.

    Attributes:
        utterances: U.
        folds: How many folds these are of.
        classes: K names.
        unit: "speaker" or "dialogue".
        clusters: C.
        speakers: How many people say the utterances.
        shared_speakers: Those of them who speak in several clusters. If there are some, intervals
            and p are about other clusters of these people, and too sure of other people.
        runs: In the order given.
        pairs: The first run with each other one, or all pairs.
        left_out: Rows that not all runs predicted alike.
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
    """How to compare.

    Attributes:
        all_pairs: Every run with every other, not just the first with the others.
        flips: How many changed utterances to list in each direction.
        permutations: At most, of the permutation test.
        seed: Of the permutations; draws of the bootstrap are those of the report.
        unit: "speaker" or "dialogue", drawn and swapped as a whole; None: as the report, and
            utterances are swapped where there are too few to reject anything.
    """

    all_pairs: bool = False
    flips: int = SHOWN
    permutations: int = PERMUTATIONS
    seed: int = 0
    unit: str | None = None


def compare_runs(names: Sequence[str], settings: Settings | None = None) -> Comparison:
    """Read runs and compare them.

    Args:
        names: Two or more, as `pipeline.compare.sources.read_run` takes them.
        settings: None: the defaults.

    Raises:
        RunError: If a run cannot be read, or they have too little in common.
        ParamsError: If a run is not known, or there are too few.
    """
    settings = settings or Settings()
    found = [read_run(name) for name in names]
    return compare_rows(common_rows(found, unit=settings.unit), settings, known_labels(found))


def compare_rows(rows: CommonRows, settings: Settings, labels: Mapping[str, Label]) -> Comparison:
    """Compare runs on their common rows.

    Args:
        rows: All runs.
        settings: How.
        labels: By id, for the transcripts; may be empty.
    """
    draws = [_draws(run) for run in rows.runs]
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
    """Metrics and those of each class, which are NaN where a draw lacks the class."""
    found = _headline(matrices)
    for name, values in zip(("recall", "f1"), class_values(matrices), strict=True):
        found |= {f"{name} {k}": values[..., k] for k in range(matrices.shape[-1])}
    return found


def _headline(matrices: Matrices) -> dict[str, Floats]:
    found = scores(matrices)
    return {name: found[name] for name in MONITORS}


def _draws(run: Compared) -> dict[str, Floats]:
    """Seed-mean `[D]` of everything; empty for one cluster, which says nothing of another."""
    return resample(run.matrices, _statistic) if run.matrices.shape[1] > 1 else {}


def _scores(run: Compared, draws: Mapping[str, Floats]) -> RunScores:
    found = {}
    for name, of_seeds in _headline(run.matrices.sum(1)).items():
        sd = float(of_seeds.std(ddof=1)) if run.seeds > 1 else None
        interval = percentile_interval(draws[name]) if draws else None
        found[name] = RunScore(float(of_seeds.mean()), interval, sd)
    return RunScores(run.tag, run.name, run.whose, run.seeds, found)


def _pair(
    rows: CommonRows,
    runs: tuple[Compared, Compared],
    draws: tuple[Mapping[str, Floats], Mapping[str, Floats]],
    settings: Settings,
    labels: Mapping[str, Label],
) -> Pair:
    totals = [{k: v.mean(-1) for k, v in _statistic(run.matrices.sum(1)).items()} for run in runs]

    def change(name: str) -> Change:
        first, second = (float(of[name]) for of in totals)
        apart = draws[1][name] - draws[0][name] if draws[0] else None
        interval = None if apart is None else percentile_interval(apart)
        return Change(first, second, second - first, interval)

    support = np.bincount(rows.labels, minlength=len(rows.classes))
    classes = (
        ClassChange(name, int(support[k]), change(f"recall {k}"), change(f"f1 {k}"))
        for k, name in enumerate(rows.classes)
        if support[k]
    )
    unit = rows.unit if settings.unit or rows.clusters >= FEWEST else "utterance"
    test = permutation_test(
        (_units(rows, runs[0], unit), _units(rows, runs[1], unit)),
        *(_headline, unit),
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
        p_holm=test.p,
        mcnemar=exact,
        mcnemar_holm=exact.p,
        classes=tuple(classes),
        flips=flips(rows, runs, labels, shown=settings.flips),
    )


def _units(rows: CommonRows, run: Compared, unit: str) -> Floats:
    """Confusion matrices of what is swapped as a whole, averaged over seeds: `[n, K, K]`."""
    if unit != "utterance":
        return np.asarray(run.matrices.mean(0))
    # an utterance that is tested in several folds is one unit
    _, group = np.unique([item.id for item in rows.items], return_inverse=True)
    counts = grouped_confusion(
        np.tile(group, run.seeds),
        int(group.max()) + 1,
        np.tile(rows.labels, run.seeds),
        run.predictions.ravel(),
        len(rows.classes),
    )
    return np.asarray(counts / run.seeds)


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
