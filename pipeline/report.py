"""What a report says, as records: everything a page or metrics.json is made from.

`Scores` maps a metric's name (accuracy, which is WA; uar; macro_f1; weighted_f1; ovr_accuracy) to
a fraction in [0, 1], never rounded. Unless told otherwise a score is the mean over seeds of the
score on the test rows of all folds, pooled; an `Interval` is that mean's 95 % cluster bootstrap
(pipeline.statistics); and a number of utterances counts each test utterance once, whatever the
number of seeds.

Legend: S seeds, F folds, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.manifest import Label
from pipeline.baselines import Baselines
from pipeline.calibration import Calibration, CalibrationScores, ReliabilityBin
from pipeline.metrics import Counts, Floats
from pipeline.rows import Clusters
from pipeline.runs import RunFolder
from pipeline.slots_alone import Condition, Difference, Probe
from pipeline.speaker_spread import SpeakerScore, SpeakerSpread
from pipeline.statistics import Interval, Intervals, Scores
from pipeline.subgroups import Gap, Group, Grouping
from pipeline.worst_errors import WorstError, WorstErrors

__all__ = [
    "Baselines",
    "Calibration",
    "CalibrationScores",
    "ClassScores",
    "Clusters",
    "Condition",
    "Difference",
    "Gap",
    "Group",
    "Grouping",
    "Interval",
    "Intervals",
    "JobScores",
    "Probe",
    "ReliabilityBin",
    "Report",
    "Scores",
    "SeedScores",
    "SpeakerScore",
    "SpeakerSpread",
    "Summary",
    "WorstError",
    "WorstErrors",
]


@dataclass(frozen=True)
class Summary:
    """One metric of the whole test split.

    Attributes:
        name: Of the metric.
        value: Mean over seeds, folds pooled.
        interval: Of `value`; None for fewer than two clusters.
        sd: Standard deviation over seeds (of S - 1); None for one seed.
        fold_mean: Mean over seeds and folds of each fold's score; None for one fold.
        fold_sd: Standard deviation over folds (of F - 1) of the mean over seeds; None as above.
        majority: Score of each fold's most frequent training class.
        chance: Expected score of guessing all classes alike.
        prior: Expected score of guessing classes as often as they occur in the training split.
    """

    name: str
    value: float
    interval: Interval | None
    sd: float | None
    fold_mean: float | None
    fold_sd: float | None
    majority: float
    chance: float
    prior: float


@dataclass(frozen=True)
class ClassScores:
    """Metrics of one class, means over seeds; `support` counts its test rows of one seed.

    A class with a support of 0 is absent from the test labels: it has no recall and no F1, leaves
    UAR, and counts in macro F1, as 0, only if it was predicted.
    """

    name: str
    precision: float
    recall: float | None
    f1: float | None
    f1_interval: Interval | None
    ovr_accuracy: float
    support: int


@dataclass(frozen=True)
class SeedScores:
    """One seed: its test rows of all folds pooled, and the mean over its folds (None for one)."""

    seed: int
    utterances: int
    scores: Scores
    fold_mean: Scores | None


@dataclass(frozen=True)
class JobScores:
    """One trained model: its test rows, and the temperature its validation rows ask for."""

    seed: int
    fold: int
    utterances: int
    scores: Scores
    temperature: float | None


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes:
        run: What was read.
        card: card.json of the corpus.
        labels: Those of the whole corpus.
        metrics: The numbers of metrics.json: pipeline.metrics_file.
        f1_names: Key in `metrics` of the F1 of each class.
        intervals: By key in `metrics`, F1 of classes included; empty for one cluster.
        confusions: `[S, K, K]` counts of the test rows of all folds, true classes in rows.
        job_confusions: `[S * F, K, K]`, the same for each job of `run.jobs`.
        shares: `[K, K]` share of each true class that each class was predicted for, all seeds.
        speakers: Number of speakers of the test rows.
        left_out: Test utterances without a prediction, as some slot has no features of them.
        clusters: What intervals are drawn over.
        summaries: By metric, in order of importance.
        classes: In order of `run.classes`.
        seeds: In order of `run.seeds`.
        jobs: In order of `run.jobs`.
        baselines: Scores of guessing.
        calibration: Of the test probabilities.
        groupings: Those about which the corpus says something.
        speaker_spread: Accuracy by speaker.
        errors: What to listen to first.
        probes: By slot; empty if the run holds none.
        conditions: By name; empty if the run holds none.
    """

    run: RunFolder
    card: Mapping[str, Any]
    labels: tuple[Label, ...]
    metrics: Mapping[str, float]
    f1_names: tuple[str, ...]
    intervals: Intervals
    confusions: Counts
    job_confusions: Counts
    shares: Floats
    speakers: int
    left_out: int
    clusters: Clusters
    summaries: Mapping[str, Summary]
    classes: tuple[ClassScores, ...]
    seeds: tuple[SeedScores, ...]
    jobs: tuple[JobScores, ...]
    baselines: Baselines
    calibration: Calibration
    groupings: tuple[Grouping, ...]
    speaker_spread: SpeakerSpread
    errors: WorstErrors
    probes: tuple[Probe, ...]
    conditions: tuple[Condition, ...]
