"""Holds a run against the labels that it says it was trained on, and counts what it trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features.manifest import Label
from pipeline.metrics import Floats
from pipeline.runs import Job, RunFolder
from pipeline.tables import AGAIN, RunError


def check_card(run: RunFolder, card: Mapping[str, Any], path: Path) -> None:
    """Refuse a corpus card of other classes.

    Raises:
        RunError: If classes or their order differ.
    """
    if card.get("classes") != list(run.classes):
        raise RunError(
            f"{path}: classes {card.get('classes')}; expected those of "
            f"{run.path / 'run.json'}, {list(run.classes)}: {AGAIN}"
        )


def check_labels(run: RunFolder, known: Mapping[str, Label]) -> None:
    """Refuse a run whose rows contradict the labels, or that leaves test utterances out.

    Args:
        run: What was read.
        known: Labels by id.

    Raises:
        RunError: Naming file, line and remedy.
    """
    for job in run.jobs:
        table = job.table
        facts = ("id", "speaker", "split", "label")
        for index, (id, *found) in enumerate(zip(*map(table.column, facts), strict=True)):
            if id not in known:
                table.refuse(index, f"id {id!r} is not in labels.jsonl of {run.corpus}")
            label = known[id]
            expected = [label.speaker, *label.splits[job.fold : job.fold + 1], label.label]
            if found != expected:
                table.refuse(
                    index, f"speaker, split, label of {id!r} are {found}; labels.jsonl: {expected}"
                )
        missing = _split_ids(run, known.values(), job, "test") - set(table.column("id"))
        if missing:
            raise RunError(
                f"{table.path}: {len(missing)} test utterances are neither predicted nor listed "
                f"as dropped in run.json, such as {sorted(missing)[:5]}; expected every one of "
                f"them: {AGAIN}"
            )


def class_counts(run: RunFolder, known: Mapping[str, Label], split: str) -> Floats:
    """Utterances of each class in a split of each fold, dropped ones left out: `[F, K]`."""
    counts = np.zeros((run.folds, len(run.classes)))
    for job in run.jobs[: run.folds]:
        ids = _split_ids(run, known.values(), job, split)
        found = Counter(known[id].label for id in ids)
        counts[job.fold] = [found[name] for name in run.classes]
    return counts


def _split_ids(run: RunFolder, labels: Iterable[Label], job: Job, split: str) -> set[str]:
    fold = slice(job.fold, job.fold + 1)
    in_split = {label.id for label in labels if label.splits[fold] == (split,)}
    return in_split - run.dropped.keys()
