"""Checks a run against the labels it was trained on, and counts its classes in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.corpus.manifest import UNLABELLED, Label
from features.errors import RunError
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.metrics.classes import Floats
from pipeline.runs.layout import SCORED
from pipeline.runs.tables import AGAIN

_ROUNDING = 1e-6  # of truth written with nine significant digits


def check_card(run: RunFolder, card: Mapping[str, Any], path: Path) -> None:
    """Refuse the card of another corpus, or of other classes or folds.

    Raises:
        RunError: If they, or the order of classes, differ.
    """
    own = {"folds": run.folds, "corpus": run.corpus}
    own |= {"classes": list(run.classes)} if run.classes else {}
    for name, expected in own.items():
        if name in card and card[name] != expected:
            raise RunError(
                f"{path}: {name} {card[name]!r}; expected that of {run.path / 'run.json'}, "
                f"{expected!r}: {AGAIN}"
            )


def check_named(run: RunFolder, **expected: str) -> None:
    """Refuse a run folder at the path of another run.

    Args:
        run: Run folder.
        expected: `regime`, `corpus` and `fusion` of its path.

    Raises:
        RunError: If run.json names others.
    """
    found = {name: getattr(run, name) for name in expected}
    if found != expected:
        raise RunError(f"{run.path / 'run.json'}: found {found}; expected {expected}: {AGAIN}")


def check_labels(run: RunFolder, known: Mapping[str, Label]) -> None:
    """Refuse a run whose rows contradict the labels, or that leaves utterances out.

    Args:
        run: Run folder.
        known: Labels by id.

    Raises:
        RunError: Naming file, line and remedy.
    """
    expected: dict[tuple[int, str], set[str]] = {}  # by fold and split, the same for all seeds
    for job in run.jobs:
        _check_rows(run, job, known)
        _check_targets(run, job, known)
        predicted = set(job.table.column("id"))
        for split in SCORED:
            if (job.fold, split) not in expected:
                learnt = _learnt(run, known.values())
                expected[job.fold, split] = _split_ids(run, learnt, job, split)
            missing = expected[job.fold, split] - predicted
            if missing:
                raise RunError(
                    f"{job.table.path}: {len(missing)} {split} utterances are neither predicted "
                    f"nor listed as dropped in run.json, such as {sorted(missing)[:5]}; expected "
                    f"every one of them: {AGAIN}"
                )
    strange = sorted(run.dropped.keys() - known.keys())
    used = len(known) - run.targets.lacking
    if run.targets.classes_alone:
        used = sum(label.label is not None or _only_predicted(label) for label in known.values())
    if strange or run.utterances != used - len(run.dropped):
        raise RunError(
            f"{run.path / 'run.json'}: {run.utterances} utterances and {len(run.dropped)} dropped"
            f"{f', such as {strange[0]!r}' if strange else ''}; expected together the "
            f"{used} of labels.jsonl: {AGAIN}"
        )


def _check_rows(run: RunFolder, job: JobResult, known: Mapping[str, Label]) -> None:
    table, facts = job.table, ("id", "speaker", "dialogue", "split", "label")
    with_class = bool(run.classes)
    for index, (id, *found) in enumerate(zip(*map(table.column, facts), strict=True)):
        if id not in known:
            table.refuse(index, f"id {id!r} is not in labels.jsonl of {run.corpus}")
        label = known[id]
        split = label.splits[job.fold : job.fold + 1]  # empty where labels have fewer folds
        own = (label.label or "") if with_class else ""
        expected = [label.speaker, label.dialogue or "", *split, own]
        if found != expected:
            columns = "speaker, dialogue, split, label"
            table.refuse(index, f"{columns} of {id!r} are {found}; labels.jsonl: {expected}")


def _check_targets(run: RunFolder, job: JobResult, known: Mapping[str, Label]) -> None:
    """Refuse rows whose votes or attributes are not those of their labels."""
    labels = [known[id] for id in job.table.column("id")]
    names = list(run.targets.scales)
    values = [[(label.values or {}).get(name, math.nan) for name in names] for label in labels]
    pairs = [("attributes", job.truth, values)]
    if "votes" in run.targets.tasks:
        shares = [vote_shares(label, run.classes) for label in labels]
        pairs.append(("shares of votes", job.shares, shares))
    for what, found, expected in pairs:
        given = np.array(expected, np.float64).reshape(found.shape)
        wrong = ~np.isclose(found, given, rtol=0, atol=_ROUNDING, equal_nan=True).all(1)
        if wrong.any():
            row = int(np.argmax(wrong))
            job.table.refuse(
                row,
                f"{what} of {labels[row].id!r} are {found[row].tolist()}; labels.jsonl: "
                f"{expected[row]}",
            )


def vote_shares(label: Label, classes: Sequence[str]) -> list[float]:
    """Shares of the votes for each class, `[K]`; NaN without votes."""
    votes = label.votes or {}
    total = sum(votes.get(name, 0.0) for name in classes)
    return [votes.get(name, 0.0) / total if total else math.nan for name in classes]


def _only_predicted(label: Label) -> bool:
    return set(label.splits) == {UNLABELLED}


def _learnt(run: RunFolder, labels: Iterable[Label]) -> Iterator[Label]:
    """Labels that hold any of the run's targets."""
    tasks, scales = run.targets.tasks, run.targets.scales
    for label in labels:
        votes = "votes" in tasks and label.votes is not None
        value = any(name in (label.values or {}) for name in scales)
        if votes or value or ("classes" in tasks and label.label is not None):
            yield label


def class_counts(run: RunFolder, known: Mapping[str, Label], split: str) -> Floats:
    """`[F, K]` utterances of each class in a split of each fold, without dropped ones."""
    counts = np.zeros((run.folds, len(run.classes)))
    for job in run.jobs[: run.folds]:  # those of the first seed: splits are the same for all
        ids = _split_ids(run, known.values(), job, split)
        found = Counter(known[id].label for id in ids)
        counts[job.fold] = [found[name] for name in run.classes]
    return counts


def _split_ids(run: RunFolder, labels: Iterable[Label], job: JobResult, split: str) -> set[str]:
    fold = slice(job.fold, job.fold + 1)
    in_split = {label.id for label in labels if label.splits[fold] == (split,)}
    return in_split - run.dropped.keys()
