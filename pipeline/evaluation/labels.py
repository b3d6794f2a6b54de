"""Checks a run against the labels it was trained on, and counts its classes in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features.corpus.manifest import Label
from features.errors import RunError
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.metrics.classes import Floats
from pipeline.runs.layout import SCORED
from pipeline.runs.tables import AGAIN


def check_card(run: RunFolder, card: Mapping[str, Any], path: Path) -> None:
    """Refuse the card of another corpus, or of other classes or folds.

    Raises:
        RunError: If they, or the order of classes, differ.
    """
    own = {"classes": list(run.classes), "folds": run.folds, "corpus": run.corpus}
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
    for job in run.jobs:
        _check_rows(run, job, known)
        for split in SCORED:
            missing = _split_ids(run, known.values(), job, split) - set(job.table.column("id"))
            if missing:
                raise RunError(
                    f"{job.table.path}: {len(missing)} {split} utterances are neither predicted "
                    f"nor listed as dropped in run.json, such as {sorted(missing)[:5]}; expected "
                    f"every one of them: {AGAIN}"
                )
    strange = sorted(run.dropped.keys() - known.keys())
    if strange or run.utterances != len(known) - len(run.dropped):
        raise RunError(
            f"{run.path / 'run.json'}: {run.utterances} utterances and {len(run.dropped)} dropped"
            f"{f', such as {strange[0]!r}' if strange else ''}; expected together the "
            f"{len(known)} of labels.jsonl: {AGAIN}"
        )


def _check_rows(run: RunFolder, job: JobResult, known: Mapping[str, Label]) -> None:
    table, facts = job.table, ("id", "speaker", "dialogue", "split", "label")
    for index, (id, *found) in enumerate(zip(*map(table.column, facts), strict=True)):
        if id not in known:
            table.refuse(index, f"id {id!r} is not in labels.jsonl of {run.corpus}")
        label = known[id]
        split = label.splits[job.fold : job.fold + 1]  # empty where labels have fewer folds
        expected = [label.speaker, label.dialogue or "", *split, label.label]
        if found != expected:
            columns = "speaker, dialogue, split, label"
            table.refuse(index, f"{columns} of {id!r} are {found}; labels.jsonl: {expected}")


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
