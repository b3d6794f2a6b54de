"""Rows that all members of an ensemble predict, with each member's probabilities.

The seeds of a member are averaged first, so that a member of ten seeds weighs no more than one of
two. Members must have the same classes, folds, splits and labels, and predict the same rows; what
one of them dropped for a reason that its run.json names is dropped by the ensemble.

Shapes: M members, N rows of a fold, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.errors import RunError
from pipeline.ensemble.members import Member
from pipeline.evaluation.run_folder import JobResult
from pipeline.metrics.classes import Floats
from pipeline.runs.tables import Table

_FACTS = ("speaker", "dialogue", "split", "label")
_EXAMPLES = 3
_TIE = 1e-13  # what a member predicts stays its likeliest class where, as in a vote, several are


@dataclass(frozen=True)
class FoldRows:
    """Rows of a fold.

    Attributes:
        fold: Fold, from 0.
        ids: `[N]` in the order of the first member.
        facts: `[N]` speaker, dialogue, split and label as written.
        labels: `[N]` indices of classes; -1 where a row has none.
        test: `[N]` bool: test split; the others are of the valid split.
        numbers: Columns of numbers of predictions.csv by name, each `[M, N]`.
        probabilities: `[M, N, K]`, the columns `p_<class>` among them.
    """

    fold: int
    ids: tuple[str, ...]
    facts: tuple[tuple[str, ...], ...]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]
    numbers: Mapping[str, Floats]
    probabilities: Floats


def dropped_by_any(members: Sequence[Member]) -> dict[str, str]:
    """Reason by id of the utterances that some member dropped, naming the first such member."""
    found: dict[str, str] = {}
    for member in members:
        for id, reason in member.run.dropped.items():
            found.setdefault(id, f"{member.name}: {reason}")
    return found


def check_alike(members: Sequence[Member]) -> None:
    """Refuse members that cannot be combined.

    Raises:
        RunError: If they differ in what they learn, in classes, in the number of folds, or in rows.
    """
    first, *others = members
    for other in others:
        for what, one, two in (
            ("targets", first.run.targets.tasks, other.run.targets.tasks),
            ("classes", first.run.classes, other.run.classes),
            ("folds", first.run.folds, other.run.folds),
            ("columns", first.run.targets.columns, other.run.targets.columns),
            ("scales", dict(first.run.targets.scales), dict(other.run.targets.scales)),
        ):
            if one != two:
                raise RunError(
                    f"members: {first.name} has the {what} {one}, {other.name} {two}; expected the "
                    "same: train them on the same labels and protocol"
                )
    dropped = dropped_by_any(members).keys()
    for fold in range(first.run.folds):
        rows = {
            f"{member.name}, seed {job.seed}," if place else member.name: _kept(job.table, dropped)
            for member in members
            for place, job in enumerate(_jobs(member, fold))
        }
        for name in rows:
            _check_rows(first.name, name, rows, fold)


def fold_rows(members: Sequence[Member], fold: int) -> FoldRows:
    """Rows of a fold; members that `check_alike` accepts."""
    dropped = dropped_by_any(members).keys()
    table = _jobs(members[0], fold)[0].table
    kept = _kept(table, dropped)
    ids = tuple(kept)
    names = table.header[table.header.index("prediction") + 1 :]
    numbers = {
        name: np.stack([_seed_mean(member, fold, name, ids) for member in members])
        for name in names
    }
    run, facts = members[0].run, tuple(kept.values())
    index = {name: k for k, name in enumerate(run.classes)}
    probabilities = [numbers[f"p_{name}"] for name in run.classes]
    shape = (len(members), len(ids), 0)
    return FoldRows(
        fold=fold,
        ids=ids,
        facts=facts,
        labels=np.array([index.get(fact[-1], -1) for fact in facts], np.int64),
        test=np.array([fact[2] == "test" for fact in facts], bool),
        numbers=numbers,
        probabilities=np.stack(probabilities, axis=-1) if probabilities else np.zeros(shape),
    )


def _jobs(member: Member, fold: int) -> list[JobResult]:
    """Results of all seeds of a fold."""
    return [job for job in member.run.jobs if job.fold == fold]


def _kept(table: Table, dropped: Collection[str]) -> dict[str, tuple[str, ...]]:
    cells = zip(table.column("id"), *map(table.column, _FACTS), strict=True)
    return {id: tuple(facts) for id, *facts in cells if id not in dropped}


def _check_rows(
    first: str, other: str, rows: Mapping[str, Mapping[str, tuple[str, ...]]], fold: int
) -> None:
    one, two = rows[first], rows[other]
    for name, lacking in ((other, one.keys() - two.keys()), (first, two.keys() - one.keys())):
        if lacking:
            raise RunError(
                f"members: {name} lacks {len(lacking)} of the rows of fold {fold} that "
                f"{first if name == other else other} predicts, such as "
                f"{sorted(lacking)[:_EXAMPLES]}; expected the same rows: run both on the same "
                "corpus and protocol"
            )
    differing = [id for id in one if one[id] != two[id]]
    if differing:
        id = differing[0]
        raise RunError(
            f"members: {len(differing)} rows of fold {fold} differ in {', '.join(_FACTS)}: {id!r} "
            f"is {list(one[id])} in {first} and {list(two[id])} in {other}; expected the same "
            "labels and splits: `dvc repro` trains both on those of today"
        )


def _seed_mean(member: Member, fold: int, name: str, ids: Sequence[str]) -> Floats:
    """A column of numbers `[N]`, mean over the seeds of a member.

    The probability of a class by a model that gives none is the share of seeds that answer it.
    """
    found = []
    for table in (job.table for job in _jobs(member, fold)):
        place = {id: row for row, id in enumerate(table.column("id"))}
        values = table.numbers(name)
        if name.startswith("p_"):
            answers = np.array(table.column("prediction")) == name.removeprefix("p_")
            values = values + _TIE * answers if member.run.with_probabilities else 1.0 * answers
        found.append(values[[place[id] for id in ids]])
    return np.asarray(np.mean(found, axis=0), np.float64)
