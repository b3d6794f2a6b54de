"""Begins end-to-end training with the fusion of a run that was trained before: `e2e.init`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.errors import ManifestError, ParamsError
from features.files import file_sha256
from features.locations import expanded, project_root
from features.manifest import Label
from pipeline.checkpoint import load_model, read_description
from pipeline.fusion._model import FusionModel
from pipeline.jobs import Job
from pipeline.runs import PREDICTIONS, SCORED, read_head
from pipeline.tables import read_csv
from pipeline.tune_params import InitRun

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
    found = read_description(folder)
    for key in KEYS:
        before, now = found.get(key) or {}, description.get(key) or {}
        if before != now:
            raise ParamsError(
                f"e2e.init: {folder / 'model.json'} has {key} {before}; expected {now}: "
                "take a run of the same model on the same backbones"
            )
    fusion.load_state_dict(load_model(folder)[0].state_dict())


def beginning_of(init: InitRun) -> Path:
    """The folder of the run that training begins with; its fusions are those that are meant.

    Raises:
        ParamsError: If it is not there, or its fusions are not those that `e2e.init.sha256` names.
    """
    folder = project_root() / expanded(init.run)
    found = fusions_sha256(folder)
    if found is None:
        raise ParamsError(
            f"e2e.init.run: given {init.run!r}, and {folder} holds no trained fusion "
            "(seed_*/fold_*/model.safetensors); expected a run folder such as "
            "runs/cached/demo/heron: train it, `dvc pull` it, or set `e2e.init: null`"
        )
    if init.sha256 != found:
        raise ParamsError(
            f"e2e.init.sha256: given {init.sha256}; the fusions in {folder} have {found}: write "
            f"`init: {{run: {init.run}, sha256: {found}}}` to begin with these, so that DVC sees "
            "when they change"
        )
    return folder


def fusions_sha256(folder: Path) -> str | None:
    """Identity of the fusions of all seeds and folds of a run; None if there is none.

    The SHA-256 of a line `hash  seed_0/fold_0/model.safetensors` for each of their files, by name.
    """
    paths = sorted(folder.glob("seed_*/fold_*/model.*"))
    if not any(path.suffix == ".safetensors" for path in paths):
        return None
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
    run = read_head(init)
    if run.get("corpus") != corpus:
        return
    for fold in range(folds):
        then = _scored(init / f"seed_{run['seeds'][0]}" / f"fold_{fold}", run["classes"])
        now = {label.id for label in labels if label.splits[fold] in SCORED}
        seen = sorted(now - then - set(run["dropped"]))
        if seen:
            raise ManifestError(
                f"e2e.init: {init} was trained on {len(seen)} utterances that are scored in fold "
                f"{fold}, such as {seen[:3]}; expected a run with the same splits: train it again"
            )


def _scored(folder: Path, classes: Sequence[str]) -> set[str]:
    path = folder / "predictions.csv"
    if not path.is_file():
        return set()
    columns = (*PREDICTIONS, *(f"p_{name}" for name in classes))
    return set(read_csv(path, columns).column("id"))
