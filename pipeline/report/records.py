"""The report of a run as a record, from which metrics.json and the page are made.

`Scores` maps a metric's name (accuracy, which is WA; uar; macro_f1; weighted_f1; ovr_accuracy;
ovr_weighted_f1) to a fraction in [0, 1], never rounded. Unless stated otherwise a score is the mean
over seeds of the score on the test rows of all folds, pooled; a `ConfidenceInterval` is that mean's
95 % cluster bootstrap (pipeline.evaluation.statistics); and a number of utterances counts each test
utterance once, whatever the number of seeds.

Shapes: S seeds, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.corpus.manifest import Label
from pipeline.evaluation.baselines import Baselines
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.errors import WorstErrors
from pipeline.evaluation.groups import Grouping, SpeakerSpread
from pipeline.evaluation.layers import LayerCurve
from pipeline.evaluation.rows import Clusters
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.slots import Condition, Difference, Member, Probe
from pipeline.evaluation.statistics import Intervals
from pipeline.evaluation.summaries import (
    ClassScores,
    ClusterScores,
    JobScores,
    SeedScores,
    Summary,
)
from pipeline.metrics.classes import Counts, Floats


@dataclass(frozen=True)
class Report:
    """Scores of a run, and what they rest on.

    Attributes:
        run: Run folder.
        card: card.json of the corpus.
        labels: Labels of the whole corpus.
        metrics: Numbers of metrics.json and details.json (pipeline.report.metrics_json).
        intervals: Intervals by key in `metrics`, F1 of classes included; empty for few clusters.
        confusions: `[S, K, K]` counts of the test rows of all folds, true classes in rows; with a
            last column for rows without a prediction if there are some.
        shares: `[K, K]` share of each true class that each class was predicted for, all seeds; its
            columns are those of `confusions`.
        speakers: Number of speakers of the test rows.
        left_out: Number of test utterances without a prediction, as some slot has no features of
            them.
        clusters: Units that the bootstrap draws.
        cluster_scores: Scores of each of them, where they are too few for intervals; else empty.
        summaries: Summaries by metric, in order of importance.
        classes: Scores in order of `run.classes`.
        seeds: Scores in order of `run.seeds`.
        jobs: Scores in order of `run.jobs`.
        baselines: Chance-level scores.
        gains: The model's scores minus those of the majority class, by metric.
        calibration: Calibration of the test probabilities; None if the model gives none.
        groupings: Groups by gender, duration, ..., as far as the corpus has them.
        speaker_spread: Accuracy by speaker.
        errors: Errors to listen to first.
        probes: Linear probes by slot; empty if the run holds none.
        conditions: Worse conditions by name; empty if the run holds none.
        members: Members of an ensemble by themselves; empty for other runs.
        best_member: That of them which validation chooses.
        curves: Probes of each hidden state, of the slots that hold a stack.
    """

    run: RunFolder
    card: Mapping[str, Any]
    labels: tuple[Label, ...]
    metrics: Mapping[str, float]
    intervals: Intervals
    confusions: Counts
    shares: Floats
    speakers: int
    left_out: int
    clusters: Clusters
    cluster_scores: tuple[ClusterScores, ...]
    summaries: Mapping[str, Summary]
    classes: tuple[ClassScores, ...]
    seeds: tuple[SeedScores, ...]
    jobs: tuple[JobScores, ...]
    baselines: Baselines
    gains: Mapping[str, Difference]
    calibration: Calibration | None
    groupings: tuple[Grouping, ...]
    speaker_spread: SpeakerSpread
    errors: WorstErrors
    probes: tuple[Probe, ...]
    conditions: tuple[Condition, ...]
    members: tuple[Member, ...]
    best_member: Member | None
    curves: tuple[LayerCurve, ...]
