"""Checkpoints of end-to-end trainings: within an epoch as well, a few of them, the best apart.

They lie where those of trainings on caches do (`pipeline.runtime.resume`), in a folder for each
seed and
fold: `step_<n>.safetensors` is a training after n steps, and `best_<e>.safetensors` the weights of
the best epoch that such a file names. Weights that are not trained are in neither.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from features.files.json_text import parse_json
from features.files.reading import check_regular
from pipeline.e2e.source import LiveExamples
from pipeline.params.file import ModelEntry, Params
from pipeline.runtime.resume import (
    NAME,
    UNREADABLE,
    code_of,
    folder_of,
    put_running,
    read_state,
    running,
    shard_checksums,
    write_state,
)
from pipeline.training.state import Epoch, Training, Within

GENERATORS = ("rng.cpu", "rng.cuda")


def gathered(training: Training) -> dict[str, Tensor]:
    """Tensors by name, as `pipeline.runtime.resume.running`; empty in all processes but the first.

    Generators of the others are `rng.cpu.<number>` and `rng.cuda.<number>`.
    """
    ranks, own = training.ranks, running(training)
    if ranks.count == 1:
        return own
    generators = {name: own.pop(name) for name in GENERATORS if name in own}
    tensors = {name: value.cpu() for name, value in own.items()} if ranks.is_first else {}
    for number, found in enumerate(ranks.gather(generators)):
        if ranks.is_first:
            tensors |= {_numbered(name, number): value for name, value in found.items()}
    return tensors


def put_gathered(training: Training, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `gathered` returned in the first process, in any number of them."""
    ranks, own = training.ranks, dict(tensors)
    known = all(_numbered(name, ranks.number) in own for name in GENERATORS if name in own)
    for name in GENERATORS:
        if known and name in own:
            own[name] = own[_numbered(name, ranks.number)]
    put_running(training, own)
    if not known:
        ranks.draw_apart(tensors["rng.cpu"].tolist())


def _numbered(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name


STEP, BEST = "step_*.safetensors", "best_*.safetensors"
# Keys of `e2e` that decide no number.
FREE = ("save_seconds", "keep", "tensorboard", "init")


class Found(NamedTuple):
    """A checkpoint: what `gathered` gave, facts, and the weights of the best epoch."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]
    best: dict[str, torch.Tensor]


def tune_folder(
    params: Params,
    model: ModelEntry,
    examples: LiveExamples,
    slots: Mapping[str, Any],
    device: str,
) -> Path:
    """Where the half-done trainings of a run lie, named by all that decides its numbers.

    Args:
        params: params.yaml.
        model: The entry that is trained.
        examples: What can be used.
        slots: As in run.json: by slot the provenance, hashes of weights among them.
        device: Where to compute; its kind counts, not its number.
    """
    tuning = dataclasses.asdict(params.tuning())
    told = (examples.utterances[label.id] for label in examples.labels)
    facts = {
        "regime": "e2e",
        "kind": model.kind,
        "args": dict(model.args),
        "inputs": dict(model.inputs or {}),
        "train": dataclasses.asdict(params.training(model)),
        "e2e": {name: value for name, value in tuning.items() if name not in FREE},
        "init": (tuning["init"] or {}).get("sha256"),
        "classes": list(examples.classes),
        "labels": [dataclasses.asdict(label) for label in examples.labels],
        "utterances": [(u.id, u.sha256, u.text, u.start, u.stop, u.seconds) for u in told],
        "caches": shard_checksums(examples.cached),
        "slots": dict(slots),
        "device": torch.device(device).type,
        "libraries": [version(name) for name in ("transformers", "peft")],
    }
    return folder_of(facts, code_of(model.kind, "e2e"))


class Checkpoints:
    """Saves a training now and then, and takes it up again.

    Args:
        folder: Of this seed and fold; None: nothing is kept.
        seconds: Between two checkpoints.
        keep: How many there are at most, oldest first to go.
        say: Told if one cannot be written.
    """

    def __init__(
        self, folder: Path | None, *, seconds: float, keep: int, say: Callable[[str], None]
    ) -> None:
        self.folder, self.seconds, self.keep, self._say = folder, seconds, keep, say
        self.saved = time.monotonic()
        self._failed = False

    @property
    def last(self) -> Path | None:
        """The newest one."""
        found = self._steps()
        return found[-1] if found else None

    def restore(self, training: Training) -> bool:
        """Put a training where it was saved last, and torch's generators with it.

        A file that cannot be read is left out: then it is the one before. Of several processes the
        first one reads, and the others get what it has read.

        Returns:
            Whether there was anything to take up.
        """
        ranks = training.ranks
        found = self._newest() if ranks.is_first else None
        facts = ranks.from_first(None if found is None else found.facts)
        if facts is None:
            return False
        tensors = ranks.tensors_from_first({} if found is None else found.tensors)
        best = ranks.tensors_from_first({} if found is None else found.best)
        _restore(training, facts, tensors, best)
        return True

    def _newest(self) -> Found | None:
        """The newest checkpoint that can be read; others go."""
        for path in reversed(self._steps()):
            found = read_state(path)
            best = None if found is None else self._best(found[1]["best"])
            if found is not None and best is not None:
                self._tidy(upto=path)
                return Found(*found, best)
        self._tidy(upto=None)
        return None

    def due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self.saved >= self.seconds

    def save(self, training: Training, *, ended: bool = False) -> bool:
        """Save a training between two steps, or one that has ended: then the others go.

        Of several processes the first one writes; all have to call this.

        Returns:
            Whether it could be written; if not, those before it are still there.
        """
        if self.folder is None:
            return False
        tensors = {} if ended else gathered(training)
        if not training.ranks.is_first:
            return True
        path = self.folder / STEP.replace("*", f"{training.schedule.step:08d}")
        try:
            best = self._best_path(training.best)
            if training.best and not best.exists():
                write_state(best, training.best_weights, {})
            write_state(path, tensors, _facts(training, ended=ended))
        except OSError as error:
            self._told_of(error)
            return False
        else:
            self._failed = False
            self._tidy(upto=path, keep=1 if ended else self.keep)
            return True
        finally:
            self.saved = time.monotonic()

    def _told_of(self, error: OSError) -> None:
        if not self._failed:  # once, until it works again
            last = self.last
            back = "begins anew" if last is None else f"goes on from {last}"
            self._say(
                f"cannot keep a checkpoint in {self.folder} ({error}): training goes on, but if it "
                f"is killed it {back}; make room, or set HERONRY_STORE to another disk"
            )
        self._failed = True

    def _steps(self) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(STEP))

    def _best_path(self, epoch: int) -> Path:
        assert self.folder is not None
        return self.folder / BEST.replace("*", str(epoch))

    def _best(self, epoch: int) -> dict[str, torch.Tensor] | None:
        """Weights of the best epoch; none before the first one has ended, None if damaged."""
        if epoch == 0:
            return {}
        found = read_state(self._best_path(epoch))
        return None if found is None else found[0]

    def _tidy(self, upto: Path | None, keep: int | None = None) -> None:
        """Remove old checkpoints, later ones than `upto`, and what no checkpoint needs.

        Later ones cannot be read; what else is not needed are best weights, and files that a kill
        has left half-written.
        """
        if self.folder is None:
            return
        kept = [path for path in self._steps() if upto is not None and path <= upto]
        kept = kept[-(keep or self.keep) :]
        needed = {*kept, *(self._best_path(_best_of(path)) for path in kept)}
        for path in self.folder.glob("*"):
            if path not in needed:
                path.unlink(missing_ok=True)


def _facts(training: Training, *, ended: bool) -> dict[str, Any]:
    return {
        "ended": ended,
        "best": training.best,
        "history": [dataclasses.asdict(epoch) for epoch in training.history],
        "schedule": training.schedule.state(),
        "generator": training.generator.bit_generator.state,
        "within": None if training.within is None else dataclasses.asdict(training.within),
        "scaler": training.scaler.state_dict(),
        "limit": training.fitting.limit,
    }


def _restore(
    training: Training,
    facts: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    best: dict[str, torch.Tensor],
) -> None:
    training.history[:] = [Epoch(**row) for row in facts["history"]]
    training.best, training.best_weights = facts["best"], best
    training.schedule.restore(facts["schedule"])
    training.generator.bit_generator.state = facts["generator"]
    training.within = None if facts["within"] is None else Within(**facts["within"])
    training.scaler.load_state_dict(facts["scaler"])
    training.fitting.limit = facts["limit"]
    if not facts["ended"]:
        put_gathered(training, tensors)


def _best_of(path: Path) -> int:
    """The epoch whose weights a checkpoint needs; 0 if it cannot be read."""
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            return int(parse_json(file.metadata()[NAME])["best"])
    except UNREADABLE:  # it is passed over when a training is taken up
        return 0
