"""Names the folder of a run's half-done trainings by everything that decides their numbers.

DVC deletes the outputs of a stage before it runs it again, so half-done trainings are kept outside
of them, in the work store: `training/<fingerprint>/seed_<k>_fold_<j>/` (the files in it:
`pipeline.runtime.checkpoints`). After any edit that could change a number the fingerprint is
another one, and trainings start again. They are removed when all jobs of a run are done: until then
a job that has ended keeps its best weights, for a run that is started again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from features.settings.locations import store_root
from pipeline.data.examples import Examples
from pipeline.data.source import ExampleSource
from pipeline.model.inputs import InputSettings
from pipeline.params.file import ModelEntry
from pipeline.params.training import TrainParams

FORMAT = "5"  # of the files in these folders
KEPT_SECONDS = 30 * 24 * 3600.0  # until an abandoned training is removed
NAME = "training"
PREDICTIONS = "predictions"  # beside it: those of `heronry predict` that were interrupted
PROJECT = Path(__file__).parents[2]
# Sources that decide the numbers of every training: those of stages/*/dvc.yaml.
SHARED_CODE = (
    "features/cache",
    "features/corpus/agreement.py",
    "features/corpus/manifest.py",
    "features/process/devices.py",
    "features/stream.py",
    "pipeline/data",
    "pipeline/fusion/_parts",
    "pipeline/metrics",
    "pipeline/model",
    "pipeline/params/training.py",
    "pipeline/runs",
    "pipeline/training",
)
REGIME_CODE = {
    "cached": ("pipeline/cached",),
    # End-to-end training also reads audio and runs backbones. For DVC their entries in params.yaml
    # stand for them, with their `version`; here their sources do, since an edit costs no more than
    # a half-done training.
    "e2e": (
        *("pipeline/e2e", "pipeline/params/tuning.py", "features/audio", "features/backbone"),
        *("features/backbones", "features/networks", "features/weights"),
    ),
}


def run_folder(
    model: ModelEntry,
    params: TrainParams,
    examples: ExampleSource,
    *,
    regime: str,
    device: str,
    facts: Mapping[str, Any],
) -> Path:
    """Folder of the half-done trainings of a run; seeds and folds are names in it.

    Args:
        model: Entry of the model.
        params: The protocol.
        examples: Labels with their splits.
        regime: `cached` or `e2e`.
        device: Where to compute; its kind counts, not its number.
        facts: What else decides numbers, as JSON: the content of caches, or of audio and weights.
    """
    facts = {
        **facts,
        "regime": regime,
        "kind": model.kind,
        "args": dict(model.args),
        "inputs": InputSettings.of(model.inputs).to_dict(),
        "train": dataclasses.asdict(params),
        "classes": list(examples.classes),
        "labels": _labels_sha256(examples),
        "device": torch.device(device).type,
        "torch": torch.__version__,
        "code": code_sha256(code_of(model.kind, regime), PROJECT),
        "format": FORMAT,
    }
    text = json.dumps(facts, sort_keys=True)
    return store_root() / NAME / hashlib.sha256(text.encode()).hexdigest()


def _labels_sha256(examples: ExampleSource) -> str:
    digest = hashlib.sha256()
    for label in examples.labels:  # one by one: the text of all takes more memory than they do
        row = json.dumps(vars(label), sort_keys=True, default=dict)  # votes, values: mappings
        digest.update(f"{row}\n".encode())
    return digest.hexdigest()


def shard_checksums(examples: Examples) -> dict[str, list[str]]:
    """Content of the caches, by slot."""
    return {
        slot: [shard.checksum for shard in reader.shards]
        for slot, reader in examples.readers.items()
    }


def code_of(kind: str, regime: str) -> tuple[str, ...]:
    """Files and folders of the sources that decide the numbers of a training.

    Args:
        kind: Plug-in of the model: of all fusions only its own file counts.
        regime: `cached` or `e2e`.
    """
    return (*SHARED_CODE, f"pipeline/fusion/{kind}.py", *REGIME_CODE[regime])


def code_sha256(code: Sequence[str], project: Path) -> str:
    """Hexadecimal SHA-256 of the names and contents of Python files.

    Args:
        code: Files, and folders with everything below them, relative to `project`.
        project: Folder of the packages `features` and `pipeline`.

    Raises:
        FileNotFoundError: If one of them is missing: a hash of nothing would never change.
    """
    digest = hashlib.sha256()
    for name in code:
        place = project / name
        paths = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        if not paths:
            raise FileNotFoundError(errno.ENOENT, "no Python files", str(place))
        for path in paths:
            digest.update(f"{path.relative_to(project).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def forget(folder: Path) -> None:
    """Remove the half-done trainings of a run, and all that were not resumed within a month."""
    shutil.rmtree(folder, ignore_errors=True)
    for other in folder.parent.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            newest = max(path.stat().st_mtime for path in (other, *other.glob("*")))
            if time.time() - newest > KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
