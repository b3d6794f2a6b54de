"""Does the model serve all alike? Scores of groups of test utterances, and their gaps.

A group of fewer than `MINIMUM_UTTERANCES` is listed and not scored; one of fewer than
`MINIMUM_SPEAKERS` has no interval and enters no gap, as it tells people apart, not groups.

Draws are those of the whole run (`pipeline.evaluation.statistics.resample`), so that groups are
compared within each draw; a draw without any utterance of a group is left out of what is said about
it. Groups may lack classes: each is scored over those that it has, as any subset
(`pipeline.metrics`).

Legend: U test utterances, R test rows, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.rows import Flags, Ints, RunRows
from pipeline.evaluation.statistics import (
    ConfidenceInterval,
    Intervals,
    Scores,
    percentile_interval,
    resample,
)
from pipeline.metrics import MONITORS, Floats, scores

MINIMUM = 10  # utterances; the accuracy on fewer is mostly luck


@dataclass(frozen=True)
class SpeakerScore:
    """Accuracy on one speaker's test utterances, mean over seeds."""

    speaker: str
    utterances: int
    accuracy: float


@dataclass(frozen=True)
class SpeakerSpread:
    """Accuracy by speaker.

    Attributes:
        speakers: Those with `minimum` test utterances or more, worst first.
        minimum: Fewer than so many utterances are not scored.
        too_few: Speakers left out for that.
        lowest: Lowest accuracy; None without scored speakers, as the next two.
        median: Of the scored speakers.
        highest: Highest accuracy.
    """

    speakers: tuple[SpeakerScore, ...]
    minimum: int
    too_few: int
    lowest: float | None
    median: float | None
    highest: float | None


def speaker_spread(rows: RunRows) -> SpeakerSpread:
    """Accuracy by speaker, on the test rows of all folds."""
    names, of_utterance = np.unique(
        np.array([label.speaker for label in rows.utterances]), return_inverse=True
    )
    utterances = np.bincount(of_utterance, minlength=len(names))
    speaker = of_utterance[rows.utterance]
    # every seed has predicted the same utterances, so the mean over rows is that over seeds
    right = np.bincount(speaker, rows.predictions == rows.labels, minlength=len(names))
    accuracy = right / np.bincount(speaker, minlength=len(names))
    scored = [
        SpeakerScore(str(names[k]), int(utterances[k]), float(accuracy[k]))
        for k in np.argsort(accuracy, kind="stable")
        if utterances[k] >= MINIMUM
    ]
    values = [score.accuracy for score in scored]
    return SpeakerSpread(
        speakers=tuple(scored),
        minimum=MINIMUM,
        too_few=len(names) - len(scored),
        lowest=values[0] if values else None,
        median=float(np.median(values)) if values else None,
        highest=values[-1] if values else None,
    )


MINIMUM_UTTERANCES = 10
MINIMUM_SPEAKERS = 2
BANDS = {"under 2 s": 0.0, "2 to 5 s": 2.0, "5 to 10 s": 5.0, "10 s and over": 10.0}
"""Groups by duration, and the seconds that each begins with."""


@dataclass(frozen=True)
class UtteranceGroup:
    """Some of the test utterances.

    Attributes:
        name: Of the group; of the slot or condition, where that is what was scored.
        utterances: Distinct ones.
        speakers: Who say them.
        clusters: How many of those that the bootstrap draws hold some of them. An interval over
            few (`pipeline.evaluation.statistics.FEW_CLUSTERS`) is likely too narrow.
        scores: Empty for too few utterances (`pipeline.evaluation.groups.MINIMUM_UTTERANCES`).
        intervals: Empty for too few utterances, speakers or clusters.
    """

    name: str
    utterances: int
    speakers: int
    clusters: int
    scores: Scores
    intervals: Intervals


@dataclass(frozen=True)
class Gap:
    """How far groups lie apart in a metric, among groups that have an interval.

    Attributes:
        best: Name of the group with the highest score.
        worst: Name of the group with the lowest one.
        value: Highest minus lowest score.
        interval: Of highest minus lowest, whichever groups these are in a draw; never below 0,
            so it does not tell whether there is a gap.
        difference: Interval of `best` minus `worst`, these two. It holds 0 where chance alone
            may have made the gap. Of more than two groups these two were picked for
            lying apart, so it is somewhat too sure then.
    """

    best: str
    worst: str
    value: float
    interval: ConfidenceInterval
    difference: ConfidenceInterval


@dataclass(frozen=True)
class Grouping:
    """Test utterances divided by something.

    Attributes:
        field: "gender", "duration", "session", "words" (whether the corpus has the same words
            with another label), "text_probe" (whether the text alone reads neutral), or
            "lexical" (neutral: by words or by probe): pipeline.evaluation.groups.
        groups: In order of name, or of duration.
        gaps: By metric; empty with fewer than two groups that have intervals.
        unknown: Test utterances about which the corpus does not say it.
    """

    field: str
    groups: tuple[UtteranceGroup, ...]
    gaps: Mapping[str, Gap]
    unknown: int


@dataclass(frozen=True)
class Measured:
    """A group, and its scores `[D]` in each draw by metric; none for a group without intervals."""

    group: UtteranceGroup
    draws: Mapping[str, Floats]


def measure(
    rows: RunRows,
    name: str,
    keep: Flags | None = None,
    *,
    predictions: Ints | None = None,
    least: int = MINIMUM_UTTERANCES,
) -> Measured:
    """Score some of the test utterances.

    Args:
        rows: All test rows.
        name: Of the group.
        keep: `[U]`, which utterances; None: all.
        predictions: `[R]`, in place of the model's own.
        least: Fewer utterances are not scored.
    """
    keep = np.ones(len(rows.utterances), bool) if keep is None else keep
    matrices = rows.matrices(keep, predictions)
    clusters = int((matrices.sum((0, 2, 3)) > 0).sum())
    speakers = len({rows.utterances[u].speaker for u in np.flatnonzero(keep)})
    group = UtteranceGroup(name, int(keep.sum()), speakers, clusters, {}, {})
    if group.utterances < least:
        return Measured(group, {})
    found = {key: float(value.mean()) for key, value in scores(matrices.sum(1)).items()}
    group = replace(group, scores=found)
    if min(speakers, clusters) < MINIMUM_SPEAKERS:
        return Measured(group, {})
    draws = resample(matrices, scores)
    intervals = {key: percentile_interval(of) for key, of in draws.items()}
    return Measured(replace(group, intervals=intervals), draws)


def grouping(
    rows: RunRows, field: str, names: Sequence[str | None], order: Sequence[str] | None = None
) -> Grouping | None:
    """Divide the test utterances.

    Args:
        rows: All test rows.
        field: What they are divided by.
        names: `[U]`, the group of each utterance; None where it is unknown.
        order: Of the groups; None: by name.

    Returns:
        The groups that occur; None if the group of every utterance is unknown.
    """
    found = {name for name in names if name is not None}
    if not found:
        return None
    ordered = sorted(found) if order is None else [name for name in order if name in found]
    flags = {name: np.array([each == name for each in names], bool) for name in ordered}
    measured = [measure(rows, name, keep) for name, keep in flags.items()]
    return Grouping(
        field=field,
        groups=tuple(each.group for each in measured),
        gaps=_gaps([each for each in measured if each.draws]),
        unknown=sum(name is None for name in names),
    )


def known_groupings(rows: RunRows) -> list[Grouping]:
    """Those by gender, duration and session, as far as the corpus says."""
    labels = rows.utterances
    found = (
        grouping(rows, "gender", [label.gender for label in labels]),
        grouping(rows, "duration", [_band(label.seconds) for label in labels], list(BANDS)),
        grouping(rows, "session", [label.session for label in labels]),
    )
    return [each for each in found if each is not None]


def _band(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return [name for name, start in BANDS.items() if seconds >= start][-1]


def _gaps(measured: Sequence[Measured]) -> dict[str, Gap]:
    if len(measured) < 2:
        return {}
    gaps = {}
    for metric in MONITORS:
        ranked = sorted(measured, key=lambda each: each.group.scores[metric])
        worst, best = ranked[0], ranked[-1]
        draws = np.stack([each.draws[metric] for each in measured])
        gaps[metric] = Gap(
            best=best.group.name,
            worst=worst.group.name,
            value=best.group.scores[metric] - worst.group.scores[metric],
            interval=percentile_interval(draws.max(0) - draws.min(0)),
            difference=percentile_interval(best.draws[metric] - worst.draws[metric]),
        )
    return gaps
