"""Half-done trainings, kept in the work store, so that a killed one goes on where it was.

DVC deletes the outputs of a stage before it runs it again, which is why they lie outside of them:
`training/<fingerprint>/seed_<k>_fold_<j>.safetensors` below the work store. One file holds tensors
by name and, as its metadata, JSON; nothing is unpickled. It is replaced as a whole, so that a kill
at any instant leaves the last one or the one before. `train_model` removes them when all jobs of a
run are done: until then a job that has ended keeps its best weights, for a run that is begun anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from features.files.json_text import parse_json
from features.files.reading import check_regular
from features.files.writing import follow_umask, replacing
from features.settings.locations import store_root
from pipeline.data.examples import Examples
from pipeline.params.training import TrainParams
from pipeline.training.state import Epoch, Training, changing, put_back

FORMAT = "1"  # of these files
SAVE_SECONDS = 5.0  # of training between two saves: less would be saved than saving costs
SAVE_SHARE = 0.03  # of the time of a training that saving may take
KEPT_SECONDS = 30 * 24 * 3600.0  # after which nobody comes back to finish it
NAME = "training"
PROJECT = Path(__file__).parents[2]
SHARED_CODE = (  # sources that decide the numbers of every training, as in stages/*/dvc.yaml
    "features/cache",
    "features/corpus/manifest.py",
    "features/process/devices.py",
    "features/stream.py",
    "pipeline/data",
    "pipeline/fusion/_front.py",
    "pipeline/fusion/_layers.py",
    "pipeline/metrics.py",
    "pipeline/model",
    "pipeline/params/training.py",
    "pipeline/runs",
    "pipeline/training",
)
REGIME_CODE = {
    "cached": ("pipeline/cached",),
    "e2e": (
        *("pipeline/e2e", "pipeline/params/tuning.py", "features/audio", "features/backbone"),
        *("features/backbones", "features/networks", "features/weights"),
    ),
}
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError)  # what damage raises


def run_folder(
    *, kind: str, args: Mapping[str, Any], params: TrainParams, examples: Examples, device: str
) -> Path:
    """Where the half-done trainings of a run lie, named by all that decides its numbers.

    That is the model and its keywords, the protocol, the labels with their splits, the content of
    the caches, the kind of device, torch, and the sources of both packages: after an edit a
    training begins anew. Seeds and folds are names in the folder.
    """
    facts = {
        "kind": kind,
        "args": dict(args),
        "train": dataclasses.asdict(params),
        "classes": list(examples.classes),
        "labels": [dataclasses.asdict(label) for label in examples.labels],
        "slots": shard_checksums(examples),
        "device": torch.device(device).type,
    }
    return folder_of(facts, code_of(kind, "cached"))


def shard_checksums(examples: Examples) -> dict[str, list[str]]:
    """The content of the caches, by slot."""
    return {
        slot: [shard.checksum for shard in reader.shards]
        for slot, reader in examples.readers.items()
    }


def code_of(kind: str, regime: str) -> tuple[str, ...]:
    """Files and folders of the sources that decide the numbers of a training.

    They hold the sources that the stage depends on in stages/*/dvc.yaml. End-to-end training also
    reads audio and runs backbones, which extraction's `version` stands for there.

    Args:
        kind: Plug-in of the model.
        regime: `cached` or `e2e`.
    """
    return (*SHARED_CODE, f"pipeline/fusion/{kind}.py", *REGIME_CODE[regime])


def folder_of(facts: Mapping[str, Any], code: Sequence[str]) -> Path:
    """The folder that is named by these facts, torch, and the sources in `code`."""
    facts = {**facts, "format": FORMAT, "torch": torch.__version__, "code": code_sha256(code)}
    text = json.dumps(facts, sort_keys=True)
    return store_root() / NAME / hashlib.sha256(text.encode()).hexdigest()


def forget(folder: Path) -> None:
    """Remove the half-done trainings of a run, and those that nobody came back to in a month."""
    shutil.rmtree(folder, ignore_errors=True)
    for other in folder.parent.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            newest = max(path.stat().st_mtime for path in (other, *other.glob("*")))
            if time.time() - newest > KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


class Keeper:
    """Saves a training now and then, and takes it up again.

    Args:
        path: The file of this job; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.saved, self._took = time.monotonic(), 0.0

    def restore(self, training: Training) -> bool:
        """Put a training where it was saved last, and torch's generators with it.

        Returns:
            Whether there was anything to take up.
        """
        found = None if self.path is None else read_state(self.path)
        if found is None:
            return False
        tensors, facts = found
        best = {name: tensors[name] for name in tensors if name.startswith("best.")}
        training.history[:] = [Epoch(**row) for row in facts["history"]]
        training.best = facts["best"]
        training.best_weights = {name.removeprefix("best."): best[name] for name in best}
        if facts["ended"]:
            return True
        training.schedule.restore(facts["schedule"])
        training.generator.bit_generator.state = facts["generator"]
        put_running(training, tensors)
        return True

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Save if it is time to; always when the training has ended."""
        if self.path is None:
            return
        start = time.monotonic()
        if not ended and start - self.saved < max(SAVE_SECONDS, self._took / SAVE_SHARE):
            return
        try:
            _write(self.path, training, ended=ended)
        except OSError as error:
            sys.stderr.write(
                f"cannot keep a half-done training at {self.path} ({error}): it goes on, but if it "
                "is killed it begins anew; make room, or set HERONRY_STORE to another disk\n"
            )
        self.saved = time.monotonic()
        self._took = self.saved - start


def _write(path: Path, training: Training, *, ended: bool) -> None:
    facts: dict[str, Any] = {
        "ended": ended,
        "best": training.best,
        "history": [dataclasses.asdict(epoch) for epoch in training.history],
    }
    tensors = {f"best.{name}": value for name, value in training.best_weights.items()}
    if not ended:
        facts["schedule"] = training.schedule.state()
        facts["generator"] = training.generator.bit_generator.state
        tensors |= running(training)
    write_state(path, tensors, facts)


def running(training: Training) -> dict[str, Tensor]:
    """Weights, state of the optimiser, and torch's generators, by name."""
    tensors = {f"model.{name}": value for name, value in changing(training.model).items()}
    for index, state in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if _device(training).type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(_device(training))
    return tensors


def put_running(training: Training, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `running` returned."""
    put_back(training.model, under("model.", tensors))
    _restore_optimizer(training.optimizer, under("optimizer.", tensors))
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], _device(training))


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace a file as a whole: tensors, and facts for JSON.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata={NAME: json.dumps(facts)})
            follow_umask(temporary)
        except SafetensorError as error:  # which is how it says that a disk is full
            raise OSError(str(error)) from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `write_state` wrote; None if nothing is there, or nothing that can be read."""
    if not path.exists():
        return None
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, parse_json(file.metadata()[NAME])
    except UNREADABLE as error:
        sys.stderr.write(f"{path} is no half-done training ({error}); it begins anew\n")
        return None


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    # Groups hold the protocol, which a new optimiser has; the rate is set before each step.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, by the rest of their names."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in names}


def _device(training: Training) -> torch.device:
    return next(training.model.parameters()).device


def code_sha256(code: Sequence[str], project: Path = PROJECT) -> str:
    """Hexadecimal SHA-256 of the names and contents of Python files.

    Args:
        code: Files, and folders with all below them, relative to `project`.
        project: Folder of the packages `features` and `pipeline`.

    Raises:
        FileNotFoundError: If one of them is not there: a hash of nothing would never change.
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
