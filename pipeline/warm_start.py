"""Begins end-to-end training with the fusion of a run that was trained before: `e2e.init`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.errors import ManifestError, ParamsError
from features.manifest import Label
from features.records import read_json
from pipeline.checkpoint import load_model
from pipeline.fusion._model import FusionModel
from pipeline.jobs import Job
from pipeline.runs import SCORED

KEYS = ("kind", "args", "specs", "classes", "inputs")  # of model.json


def warm_start(fusion: FusionModel, init: Path, job: Job, description: Mapping[str, Any]) -> None:
    """Put the weights of the same seed and fold of an earlier run in place.

    Args:
        fusion: Freshly made.
        init: The run folder.
        job: Whose seed and fold are taken.
        description: What the fusion was made of, by `KEYS`.

    Raises:
        ParamsError: If the earlier run has no such seed and fold, or another fusion.
    """
    folder = init / f"seed_{job.seed}" / f"fold_{job.fold}"
    if not (folder / "model.json").is_file():
        raise ParamsError(
            f"e2e.init: given {str(init)!r}, which has no seed {job.seed}, fold {job.fold}; "
            "expected a run with all seeds and folds of this one: train it, or set `e2e.init: null`"
        )
    found = read_json(folder / "model.json")
    for key in KEYS:
        before, now = found.get(key) or {}, description.get(key) or {}
        if before != now:
            raise ParamsError(
                f"e2e.init: {folder / 'model.json'} has {key} {before}; expected {now}: "
                "take a run of the same model on the same backbones"
            )
    fusion.load_state_dict(load_model(folder)[0].state_dict())


def check_same_splits(init: Path, corpus: str, labels: Sequence[Label], folds: int) -> None:
    """Refuse an earlier run that was trained on what is to be scored.

    Args:
        init: Its folder.
        corpus: Name of the corpus; of another one nothing is known.
        labels: Of all utterances.
        folds: Of the protocol.

    Raises:
        ManifestError: If its splits were others.
    """
    run = read_json(init / "run.json")
    if run.get("corpus") != corpus:
        return
    for fold in range(folds):
        then = _scored(init / f"seed_{run['seeds'][0]}" / f"fold_{fold}" / "predictions.csv")
        now = {label.id for label in labels if label.splits[fold] in SCORED}
        seen = sorted(now - then - set(run["dropped"]))
        if seen:
            raise ManifestError(
                f"e2e.init: {init} was trained on {len(seen)} utterances that are scored in fold "
                f"{fold}, such as {seen[:3]}; expected a run with the same splits: train it again"
            )


def _scored(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"] for row in csv.DictReader(file)}
