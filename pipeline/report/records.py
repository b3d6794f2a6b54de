"""What a report says, as records: everything a page or metrics.json is made from.

`Scores` maps a metric's name (accuracy, which is WA; uar; macro_f1; weighted_f1; ovr_accuracy) to
a fraction in [0, 1], never rounded. Unless told otherwise a score is the mean over seeds of the
score on the test rows of all folds, pooled; an `Interval` is that mean's 95 % cluster bootstrap
(pipeline.evaluation.statistics); and a number of utterances counts each test utterance once,
whatever the number of seeds.

Legend: S seeds, F folds, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.corpus.manifest import Label
from pipeline.evaluation.baselines import Baselines
from pipeline.evaluation.calibration import Calibration, CalibrationScores, ReliabilityBin
from pipeline.evaluation.errors import WorstError, WorstErrors
from pipeline.evaluation.groups import Gap, Grouping, SpeakerScore, SpeakerSpread, UtteranceGroup
from pipeline.evaluation.rows import Clusters
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.slots import Condition, Difference, Probe
from pipeline.evaluation.statistics import ConfidenceInterval, Intervals, Scores
from pipeline.evaluation.summaries import ClassScores, JobScores, SeedScores, Summary
from pipeline.metrics import Counts, Floats

__all__ = [
    "Baselines",
    "Calibration",
    "CalibrationScores",
    "ClassScores",
    "Clusters",
    "Condition",
    "ConfidenceInterval",
    "Difference",
    "Gap",
    "Grouping",
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
    "UtteranceGroup",
    "WorstError",
    "WorstErrors",
]


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes:
        run: What was read.
        card: card.json of the corpus.
        labels: Those of the whole corpus.
        metrics: The numbers of metrics.json: pipeline.report.metrics_json.
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
