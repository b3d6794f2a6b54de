"""Scores of groups of test utterances (gender, duration, session, speaker), and their gaps.

A group of fewer than `MINIMUM_UTTERANCES` is listed and not scored; one of fewer than
`MINIMUM_SPEAKERS` has no interval and enters no gap, since its score is about that person.

Draws are those of the whole run (`pipeline.evaluation.statistics.resample`), so that groups are
compared within each draw; a draw without any utterance of a group does not count for that group.
Groups may lack classes: each is scored over the classes it has, as any subset
(`pipeline.metrics.classes`).

Shapes: U test utterances, R test rows, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.rows import Flags, Ints, RunRows
from pipeline.evaluation.statistics import (
    ConfidenceInterval,
    Draws,
    Intervals,
    Scores,
    cluster_draws,
    expanded_interval,
)
from pipeline.metrics.classes import MONITORS, scores

MINIMUM_UTTERANCES = 10  # the score on fewer is mostly luck
MINIMUM_SPEAKERS = 2
BANDS = {"under 2 s": 0.0, "2 to 5 s": 2.0, "5 to 10 s": 5.0, "10 s and over": 10.0}
"""First second of each group by duration."""


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
        speakers: Speakers with `MINIMUM_UTTERANCES` test utterances or more, worst first.
        too_few: Number of speakers with fewer.
        lowest: Lowest accuracy; None without scored speakers, as the next two.
        median: Median accuracy.
        highest: Highest accuracy.
    """

    speakers: tuple[SpeakerScore, ...]
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
    # every seed predicts the same utterances, so the mean over rows is the mean over seeds
    right = np.bincount(speaker, rows.predictions == rows.labels, minlength=len(names))
    accuracy = right / np.bincount(speaker, minlength=len(names))
    # a stable sort keeps speakers of equal accuracy in order of name
    scored = [
        SpeakerScore(str(names[k]), int(utterances[k]), float(accuracy[k]))
        for k in np.argsort(accuracy, kind="stable")
        if utterances[k] >= MINIMUM_UTTERANCES
    ]
    values = [score.accuracy for score in scored]
    return SpeakerSpread(
        speakers=tuple(scored),
        too_few=len(names) - len(scored),
        lowest=values[0] if values else None,
        median=float(np.median(values)) if values else None,
        highest=values[-1] if values else None,
    )


@dataclass(frozen=True)
class UtteranceGroup:
    """Some of the test utterances.

    Attributes:
        name: Name of the group, or of the slot or condition that was scored.
        utterances: Number of distinct utterances.
        speakers: Number of their speakers.
        scores: Scores; empty for fewer than `MINIMUM_UTTERANCES`.
        intervals: Intervals; empty for too few utterances, speakers or clusters.
    """

    name: str
    utterances: int
    speakers: int
    scores: Scores
    intervals: Intervals


@dataclass(frozen=True)
class Gap:
    """Highest minus lowest score of a metric, among groups that have an interval.

    Attributes:
        best: Name of the group with the highest score.
        worst: Name of the group with the lowest score.
        value: Highest minus lowest score.
        interval: Interval of highest minus lowest, whichever groups these are in a draw. It is
            never below 0, so it does not show whether there is a gap.
        difference: Interval of `best` minus `worst`, these two groups in every draw. It holds 0
            where chance alone may explain the gap. Among more than two groups these two were
            selected for their distance, so that it is somewhat too narrow.
    """

    best: str
    worst: str
    value: float
    interval: ConfidenceInterval
    difference: ConfidenceInterval


@dataclass(frozen=True)
class Grouping:
    """Test utterances divided into groups.

    Attributes:
        field: "gender", "duration", "session", or, from `pipeline.evaluation.lexical`, "words",
            "text_probe", "lexical".
        groups: Groups in order of name, or of duration.
        gaps: Gaps by metric; empty with fewer than two groups that have intervals.
        common: Classes that gaps are scored over, since all these groups hold them; empty if all
            of them hold the same classes anyway.
        unknown: Number of test utterances whose group the corpus does not state.
    """

    field: str
    groups: tuple[UtteranceGroup, ...]
    gaps: Mapping[str, Gap]
    common: tuple[str, ...]
    unknown: int


@dataclass(frozen=True)
class Measured:
    """A group and its scores in each draw; no draws without intervals."""

    group: UtteranceGroup
    draws: Draws


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
        name: Name of the group.
        keep: `[U]` members of the group; None: all utterances.
        predictions: `[R]` predictions to score instead of the model's own.
        least: Smallest number of utterances that is scored.
    """
    keep = np.ones(len(rows.utterances), bool) if keep is None else keep
    matrices = rows.matrices(keep, predictions)
    speakers = len({rows.utterances[u].speaker for u in np.flatnonzero(keep)})
    group = UtteranceGroup(name, int(keep.sum()), speakers, {}, {})
    none = Draws({}, 0)
    if group.utterances < least:
        return Measured(group, none)
    found = {key: float(value.mean()) for key, value in scores(matrices.sum(1)).items()}
    group = replace(group, scores=found)
    if speakers < MINIMUM_SPEAKERS:
        return Measured(group, none)
    draws = cluster_draws(matrices, scores)
    intervals = {key: each for key in draws.values if (each := draws.interval(key))}
    return Measured(replace(group, intervals=intervals), draws)


def grouping(
    rows: RunRows, field: str, names: Sequence[str | None], order: Sequence[str] | None = None
) -> Grouping | None:
    """Divide the test utterances.

    Args:
        rows: All test rows.
        field: Name of the grouping.
        names: `[U]` group of each utterance; None where it is unknown.
        order: Order of the groups; None: by name.

    Returns:
        The groups that occur; None if the group of every utterance is unknown.
    """
    found = {name for name in names if name is not None}
    if not found:
        return None
    ordered = sorted(found) if order is None else [name for name in order if name in found]
    flags = {name: np.array([each == name for each in names], bool) for name in ordered}
    measured = [measure(rows, name, keep) for name, keep in flags.items()]
    compared = [each for each in measured if each.draws.values]
    common = _common_classes(rows, [flags[each.group.name] for each in compared])
    if common:  # or a group would look worse for holding a class that is hard to predict
        held = np.array([label.class_name in common for label in rows.utterances], bool)
        again = [measure(rows, each.group.name, flags[each.group.name] & held) for each in compared]
        compared = [each for each in again if each.draws.values]
    return Grouping(
        field=field,
        groups=tuple(each.group for each in measured),
        gaps=_gaps(compared),
        common=common,
        unknown=sum(name is None for name in names),
    )


def known_groupings(rows: RunRows) -> list[Grouping]:
    """Groupings by gender, duration and session, as far as the corpus states them."""
    labels = rows.utterances
    found = (
        grouping(rows, "gender", [label.gender for label in labels]),
        grouping(rows, "duration", [duration_band(label.seconds) for label in labels], list(BANDS)),
        grouping(rows, "session", [label.session for label in labels]),
    )
    return [each for each in found if each is not None]


def duration_band(seconds: float | None) -> str | None:
    """Group of a duration, one of `BANDS`; None where it is unknown."""
    if seconds is None:
        return None
    return [name for name, start in BANDS.items() if seconds >= start][-1]


def _common_classes(rows: RunRows, groups: Sequence[Flags]) -> tuple[str, ...]:
    """Classes that all of several groups hold; empty if all of them hold the same classes."""
    held = [
        {label.class_name for label, keep in zip(rows.utterances, flags, strict=True) if keep}
        for flags in groups
    ]
    if len(held) < 2 or all(each == held[0] for each in held):
        return ()
    common = set.intersection(*held)
    return tuple(name for name in rows.classes if name in common)


def _gaps(measured: Sequence[Measured]) -> dict[str, Gap]:
    if len(measured) < 2:
        return {}
    gaps, clusters = {}, min(each.draws.clusters for each in measured)
    for metric in MONITORS:
        ranked = sorted(measured, key=lambda each: each.group.scores[metric])
        worst, best = ranked[0], ranked[-1]
        draws = np.stack([each.draws.values[metric] for each in measured])
        gaps[metric] = Gap(
            best=best.group.name,
            worst=worst.group.name,
            value=best.group.scores[metric] - worst.group.scores[metric],
            # the groups that are highest and lowest may change from draw to draw
            interval=expanded_interval(draws.max(0) - draws.min(0), clusters, (0, 1)),
            difference=expanded_interval(
                best.draws.values[metric] - worst.draws.values[metric], clusters, (-1, 1)
            ),
        )
    return gaps
