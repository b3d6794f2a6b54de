"""Scores of linear probes on single slots, of the model under worse conditions, and of members.

All are read from the run folder (`pipeline.evaluation.run_folder`); a run without them has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.groups import Measured, UtteranceGroup, measure
from pipeline.evaluation.rows import Flags, RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.metrics.classes import MONITORS


@dataclass(frozen=True)
class Difference:
    """Difference of two scores on the same utterances, with its paired interval."""

    value: float
    interval: ConfidenceInterval | None


@dataclass(frozen=True)
class Probe:
    """A unimodal baseline: a linear probe on one slot alone.

    Attributes:
        slot: Slot whose features the probe reads.
        whole: Scores on all test utterances.
        neutral: Scores on the lexically neutral ones; None where these are unknown.
        gains: The model's scores minus the probe's, by metric.
    """

    slot: str
    whole: UtteranceGroup
    neutral: UtteranceGroup | None
    gains: Mapping[str, Difference]


@dataclass(frozen=True)
class Condition:
    """The trained model with a slot dropped, or with shuffled text.

    Attributes:
        name: Name in conditions.csv.
        whole: Scores on all test utterances.
        differences: Differences from the model itself, by metric.
        neutral: Scores on the lexically neutral utterances; None where these are unknown.
        neutral_differences: Differences from the model itself on these; empty for too few.
    """

    name: str
    whole: UtteranceGroup
    differences: Mapping[str, Difference]
    neutral: UtteranceGroup | None
    neutral_differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Member:
    """A member of an ensemble by itself, its seeds averaged as in the ensemble.

    Attributes:
        name: Name in members.csv.
        whole: Scores on all test utterances.
        gains: The ensemble's scores minus the member's, by metric.
    """

    name: str
    whole: UtteranceGroup
    gains: Mapping[str, Difference]


def probes(rows: RunRows, neutral: Flags | None) -> tuple[Probe, ...]:
    """Score the probe of each slot.

    Args:
        rows: All test rows.
        neutral: `[U]` lexically neutral utterances; None where these are unknown.
    """
    slots = list(rows.jobs[0].probes)
    if not slots:
        return ()
    model, found = measure(rows, "", least=1), []
    for slot in slots:
        guesses = rows.probe_predictions(slot)
        part = None if neutral is None else measure(rows, slot, neutral, predictions=guesses).group
        whole = measure(rows, slot, predictions=guesses, least=1)
        found.append(Probe(slot, whole.group, part, differences(model, whole)))
    return tuple(found)


def members(rows: RunRows) -> tuple[Member, ...]:
    """Score each member of an ensemble by itself; none for other runs."""
    names = list(rows.jobs[0].members)
    if not names:
        return ()
    whole, found = measure(rows, "", least=1), []
    for name in names:
        alone = measure(rows, name, predictions=rows.member_predictions(name), least=1)
        found.append(Member(name, alone.group, differences(whole, alone)))
    return tuple(found)


def best_member(run: RunFolder, found: Sequence[Member]) -> Member | None:
    """The single member that the validation rows choose, the first of equals; None without any."""
    scored = [each for each in found if run.members[each.name].get("valid") is not None]
    return max(scored, key=lambda each: float(run.members[each.name]["valid"]), default=None)


def gains_over_majority(rows: RunRows, majority: Sequence[str]) -> Mapping[str, Difference]:
    """The model's scores minus those of the most frequent class, by metric.

    Args:
        rows: All test rows.
        majority: The most frequent class in the training split of each fold.
    """
    guess = [rows.classes.index(name) for name in majority]
    guesses = np.concatenate([np.full(job.test.sum(), guess[job.fold]) for job in rows.jobs])
    return differences(
        measure(rows, "", least=1),
        measure(rows, "majority", predictions=guesses, least=1),
    )


def conditions(rows: RunRows, neutral: Flags | None) -> tuple[Condition, ...]:
    """Score the model under each condition, and the difference from the model itself.

    Args:
        rows: All test rows.
        neutral: `[U]` lexically neutral utterances; None where these are unknown.
    """
    names = list(rows.jobs[0].conditions)
    if not names:
        return ()
    # the whole test split is scored however small it is, the neutral part as any group
    full = measure(rows, "", least=1)
    full_part = None if neutral is None else measure(rows, "", neutral)
    found = []
    for name in names:
        guesses = rows.condition_predictions(name)
        whole = measure(rows, name, predictions=guesses, least=1)
        part = None if neutral is None else measure(rows, name, neutral, predictions=guesses)
        found.append(
            Condition(
                name=name,
                whole=whole.group,
                differences=differences(whole, full),
                neutral=part.group if part else None,
                neutral_differences=differences(part, full_part) if part and full_part else {},
            )
        )
    return tuple(found)


def differences(one: Measured, other: Measured) -> dict[str, Difference]:
    """`one` minus `other`, both measured on the same utterances."""
    found = {}
    for metric in MONITORS if one.group.scores else ():
        value = one.group.scores[metric] - other.group.scores[metric]
        found[metric] = Difference(value, one.draws.change(metric, other.draws))
    return found
