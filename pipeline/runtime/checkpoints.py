"""Saves a training between two steps, a few checkpoints at most, and resumes it.

On a CPU it then ends with the same bytes as if it had not been interrupted; on a GPU where all
operations of the model have a deterministic algorithm (torch warns of others).

In the folder of a seed and fold (`pipeline.runtime.resume`), `step_<n>.safetensors` is a training
after n steps, and `best_<e>.safetensors` the weights of the best epoch that such a file names.
Weights that are not trained are in neither. A file holds tensors by name and, as its metadata,
JSON; nothing is unpickled. It is replaced as a whole, so that a kill at any instant leaves the
last one or the one before.

Of several processes the first one writes and reads. Weights and the optimiser's state, which are
the same in all, are stored once, so that a training resumes with another number of processes.
Generators are stored for each process; an additional process is seeded from the first one's.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from features.files.json_text import parse_json
from features.files.reading import check_regular
from features.files.writing import follow_umask, replacing
from features.process.devices import GENERATORS, generator_states, set_generators
from pipeline.runtime.resume import NAME
from pipeline.training.loop import trained_of_loss
from pipeline.training.predict import device_of
from pipeline.training.state import CurrentEpoch, Epoch, Training, load_trainable, trainable_state

SAVE_SECONDS = 5.0  # between two checkpoints: a shorter training is repeated as fast as resumed
SAVE_SHARE = 0.03  # largest share of the time of a training that saving may take
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError)  # what damage raises
STEP, BEST = "step_*.safetensors", "best_*.safetensors"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: Folder of this seed and fold; None: nothing is kept.
        report: Called with a message if a checkpoint cannot be written.
        seconds: Seconds between two checkpoints; None: `SAVE_SECONDS`, or more where saving takes
            so long that it would exceed `SAVE_SHARE`.
        keep: Largest number of checkpoints; the oldest are removed.
    """

    def __init__(
        self,
        folder: Path | None,
        report: Callable[[str], None],
        *,
        seconds: float | None = None,
        keep: int = 1,
    ) -> None:
        self.folder, self.seconds, self.keep, self._report = folder, seconds, keep, report
        self._saved, self._took = time.monotonic(), 0.0
        self._failed = False

    @property
    def last(self) -> Path | None:
        """The newest checkpoint."""
        found = self._steps()
        return found[-1] if found else None

    def restore(self, training: Training) -> bool:
        """Restore a training, and torch's generators, from its newest readable checkpoint.

        Returns:
            Whether there was one.
        """
        ranks = training.ranks
        found = self._read_newest() if ranks.is_first else None
        tensors, facts, best = ({}, None, {}) if found is None else found
        facts = ranks.broadcast(facts)
        if facts is None:
            return False
        tensors, best = ranks.broadcast_tensors(tensors), ranks.broadcast_tensors(best)
        training.history[:] = [Epoch(**row) for row in facts["history"]]
        training.best, training.best_weights = facts["best"], best
        training.schedule.restore(facts["schedule"])
        training.generator.bit_generator.state = facts["generator"]
        training.current = None if facts["current"] is None else CurrentEpoch(**facts["current"])
        training.scaler.load_state_dict(facts["scaler"])
        training.fitting.halver.too_large = [tuple(shape) for shape in facts["too_large"]]
        training.skipped = facts["skipped"]
        if not facts["ended"]:  # else there are only best weights, and no step is made
            restore_tensors(training, tensors)
        return True

    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        seconds = self.seconds
        if seconds is None:
            seconds = max(SAVE_SECONDS, self._took / SAVE_SHARE)
        return time.monotonic() - self._saved >= seconds

    def save(self, training: Training, *, ended: bool = False) -> bool:
        """Save a training between two steps, or one that has ended: then only its best weights.

        Every process has to call this; the first one writes.

        Returns:
            Whether it could be written; if not, earlier checkpoints are still there.
        """
        if self.folder is None:
            return False
        tensors = {} if ended else gather_tensors(training)
        if not training.ranks.is_first:
            return True
        started = time.monotonic()
        path = self.folder / STEP.replace("*", f"{training.schedule.step:08d}")
        try:
            # Written once, and before the checkpoint that names it.
            best = self._best_path(training.best)
            if training.best and not best.exists():
                write_state(best, training.best_weights, {})
            write_state(path, tensors, _facts(training, ended=ended))
        except OSError as error:
            self._report_failure(error)
            return False
        else:
            self._failed = False
            self._tidy(upto=path, keep=1 if ended else self.keep)
            return True
        finally:
            self._saved = time.monotonic()
            self._took = self._saved - started

    def _report_failure(self, error: OSError) -> None:
        if not self._failed:  # once, until saving works again
            last = self.last
            then = "starts again" if last is None else f"resumes from {last}"
            self._report(
                f"cannot keep a checkpoint in {self.folder} ({error}): training continues, but if "
                f"it is killed it {then}; make room, or set HERONRY_STORE to another disk"
            )
        self._failed = True

    def _steps(self) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(STEP))

    def _best_path(self, epoch: int) -> Path:
        assert self.folder is not None
        return self.folder / BEST.replace("*", str(epoch))

    def _read_newest(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]] | None:
        """Tensors, facts and best weights of the newest readable checkpoint; later ones go."""
        for path in reversed(self._steps()):
            found = read_state(path)
            best = None if found is None else self._read_best(found[1]["best"])
            if found is not None and best is not None:
                self._tidy(upto=path)
                return (*found, best)
        self._tidy(upto=None)
        return None

    def _read_best(self, epoch: int) -> dict[str, Tensor] | None:
        """Weights of the best epoch; empty before the first one has ended, None if damaged."""
        if epoch == 0:
            return {}
        found = read_state(self._best_path(epoch))
        return None if found is None else found[0]

    def _tidy(self, upto: Path | None, keep: int | None = None) -> None:
        """Remove old checkpoints, those after `upto`, and files that no checkpoint needs.

        Those after it cannot be read. The others are best weights of removed checkpoints, and
        temporary files that a kill has left.
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
    """What of a training is no tensor, for JSON."""
    return {
        "ended": ended,
        "best": training.best,
        "history": [dataclasses.asdict(epoch) for epoch in training.history],
        "schedule": training.schedule.state(),
        "generator": training.generator.bit_generator.state,
        "current": None if training.current is None else dataclasses.asdict(training.current),
        "scaler": training.scaler.state_dict(),
        "too_large": training.fitting.halver.too_large,
        "skipped": training.skipped,
    }


def _best_of(path: Path) -> int:
    """Number of the epoch whose weights a checkpoint needs; 0 if it cannot be read."""
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            return int(parse_json(file.metadata()[NAME])["best"])
    except UNREADABLE:  # `restore` skips it
        return 0


def gather_tensors(training: Training) -> dict[str, Tensor]:
    """Weights, state of the optimiser, and torch's generators, by name.

    Empty in all processes but the first. Generators of the others are `rng.cpu.<number>` and
    `rng.cuda.<number>`.
    """
    ranks, own = training.ranks, _own_tensors(training)
    if ranks.count == 1:
        return own
    generators = {name: own.pop(name) for name in GENERATORS if name in own}
    tensors = {name: value.cpu() for name, value in own.items()} if ranks.is_first else {}
    for number, found in enumerate(ranks.gather(generators)):
        if ranks.is_first:
            tensors |= {_numbered(name, number): value for name, value in found.items()}
    return tensors


def restore_tensors(training: Training, tensors: Mapping[str, Tensor]) -> None:
    """Load what `gather_tensors` returned in the first process, in any number of processes."""
    ranks, own = training.ranks, dict(tensors)
    known = all(_numbered(name, ranks.number) in own for name in GENERATORS if name in own)
    for name in GENERATORS:
        if known and name in own:
            own[name] = own[_numbered(name, ranks.number)]
    load_trainable(training.model, _below("model.", own))
    factors = _below("loss.", own)
    for number, trained in enumerate(trained_of_loss(training.model)):
        with torch.no_grad():
            trained.copy_(factors[str(number)])
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimizer.", own).items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    # Groups hold the protocol, which a new optimiser has; the rate is set before each step.
    optimizer = training.optimizer
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    set_generators(device_of(training.model), own)
    if not known:
        ranks.seed_others(tensors["rng.cpu"].tolist())


def _own_tensors(training: Training) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in trainable_state(training.model).items()}
    factors = enumerate(trained_of_loss(training.model))
    tensors |= {f"loss.{number}": factor.detach() for number, factor in factors}
    for index, state in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return tensors | generator_states(device_of(training.model))


def _numbered(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, by the rest of their names."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in names}


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace a file as a whole: tensors, and facts as JSON.

    Raises:
        OSError: If it cannot be written; an earlier file is kept.
    """
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata={NAME: json.dumps(facts)})
            follow_umask(temporary)
        except SafetensorError as error:  # which is how the library reports a full disk
            raise OSError(str(error)) from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of `write_state`; None if there is no file, or none that can be read."""
    if not path.exists():
        return None
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, parse_json(file.metadata()[NAME])
    except UNREADABLE as error:
        sys.stderr.write(f"{path} is no half-done training ({error}); it is not used\n")
        return None
