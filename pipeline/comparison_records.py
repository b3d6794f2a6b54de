"""What can be said of two or more runs on the same utterances, as records.

A score is the mean over seeds, all folds pooled, on the rows that all runs predicted
(`pipeline.common_rows`), as in the report; a difference is the second run's minus the first's, so
that one above 0 speaks for the second. Intervals are 95 % percentile bootstraps over clusters
(`pipeline.statistics`), all runs on the same draws; p are of `pipeline.paired_tests`, adjusted by
Holm's method over the pairs that are compared, each metric by itself.

Intervals and p are about other speakers (or dialogues), with these trained models. What training
again would change is said by `RunScore.sd` alone.

Legend: U common test rows, S seeds of a run, C clusters, D draws, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.common_rows import LeftOut
from pipeline.flips import Flips
from pipeline.paired_tests import McNemar, PermutationTest
from pipeline.statistics import Interval


@dataclass(frozen=True)
class RunScore:
    """One metric: mean over seeds, its interval, and the sd over seeds (None for one seed)."""

    value: float
    interval: Interval | None
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
    interval: Interval | None


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
