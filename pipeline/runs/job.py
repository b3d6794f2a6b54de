"""Training jobs: one (seed, fold) each.

A job always computes with one thread and its own seeded generators, so that it gives the same bytes
alone and in company.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from features.corpus.manifest import Label
from features.process.devices import entered
from pipeline.data.source import ExampleSource
from pipeline.metrics import MONITORS
from pipeline.model.base import FusionModel
from pipeline.params.training import TrainParams
from pipeline.runs.layout import HISTORY, PREDICTIONS, SCORED
from pipeline.runtime.resume import Keeper
from pipeline.training.loop import Fitted, evaluate
from pipeline.training.ranks import ranks_of
from pipeline.training.state import Epoch, Training


class Tell(Protocol):
    """Whoever shows how far a job is."""

    def __call__(self, text: str, *, done: bool = False) -> None:
        """Show a line in place of the last one; `done`: it is the job's last."""


@dataclass(frozen=True)
class Job:
    """What a process needs to train one model.

    Attributes:
        title: For progress lines.
        kind: Plug-in of the model.
        args: Its keywords.
        slots: Cache folder by slot.
        labels: All labels of the corpus.
        classes: Class names.
        params: The protocol.
        seed: Seed of weights, dropout and order.
        fold: Which of the protocol's folds.
        out: Folder of the results.
        device: Where to compute.
        kept: Where the half-done training is kept: `pipeline.runtime.resume`; None: nowhere.
        inputs: What happens to the streams before the model: `pipeline.model.inputs`.
        resident: Share of the device's free memory that its caches may take:
        `pipeline.cached.resident`.
        asr: Cache folder of recognised words, to test on: `pipeline.runs.recognised`; None: none.
    """

    title: str
    kind: str
    args: Mapping[str, Any]
    slots: Mapping[str, Path]
    labels: Sequence[Label]
    classes: Sequence[str]
    params: TrainParams
    seed: int
    fold: int
    out: Path
    device: str
    kept: Path | None = None
    inputs: Mapping[str, Any] | None = None
    resident: float = 0.0
    asr: Path | None = None


class Watch:
    """Keeps a job's training, and tells how far it is.

    Args:
        job: With `kept`, if it is to be kept.
        tell: As for `run_job`.
    """

    def __init__(self, job: Job, tell: Tell | None) -> None:
        self.job, self._tell = job, tell
        path = job.kept and job.kept / f"seed_{job.seed}_fold_{job.fold}.safetensors"
        self.keeper = Keeper(path)

    def begin(self, training: Training) -> None:
        """Take the training up where it was kept."""
        if self.keeper.restore(training):
            self.tell(f"goes on after epoch {len(training.history)}")

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Tell of an epoch, and keep the training."""
        epoch = training.history[-1]
        self.tell(
            f"epoch {epoch.epoch}/{self.job.params.epochs}, loss {epoch.train_loss:.3f}, "
            f"validation loss {epoch.valid_loss:.3f}, {self.score(epoch)}"
        )
        self.keeper.epoch_ended(training, ended=ended)

    def tell(self, text: str, *, done: bool = False) -> None:
        """Show a line about this job."""
        if self._tell is not None:
            job = self.job
            self._tell(f"{job.title} seed {job.seed} fold {job.fold}: {text}", done=done)

    def score(self, epoch: Epoch) -> str:
        """What an epoch is chosen by, as text."""
        monitor = self.job.params.monitor
        return f"{monitor} {epoch.scores[monitor]:.3f}"


@contextlib.contextmanager
def repeatable(device: str, *, threads: int = 1) -> Iterator[None]:
    """On the device, so many threads, and only algorithms that give the same numbers again.

    On a GPU that is asked of cuBLAS, and an operation without such an algorithm warns.
    """
    on_cpu = torch.device(device).type == "cpu"
    if not on_cpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=not on_cpu)
    memory.fill_uninitialized_memory = False  # it costs, and finds bugs only
    try:
        with entered(device):
            yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(mode=strict, warn_only=lenient)
        torch.set_num_threads(before)


def write_history(job: Job, fitted: Fitted) -> None:
    """Write `history.csv` of a job."""
    with (job.out / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HISTORY)
        for row in fitted.history:
            losses = [f"{value:.9g}" for value in (row.lr, row.train_loss, row.valid_loss)]
            scores = [f"{row.scores[name]:.9g}" for name in MONITORS]
            kept = int(row.epoch == fitted.best)
            writer.writerow([job.seed, job.fold, row.epoch, *losses, *scores, kept])


def write_predictions(job: Job, model: FusionModel, examples: ExampleSource) -> None:
    """Write `predictions.csv` of a job: its validation and test split."""
    if not ranks_of(examples).is_first:  # computes its share of them, and writes nothing
        for split in SCORED:
            evaluate(model, examples, examples.split(job.fold, split))
        return
    with (job.out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*PREDICTIONS, *(f"p_{name}" for name in job.classes)])
        for split in SCORED:
            labels = examples.split(job.fold, split)
            rows = evaluate(model, examples, labels).probabilities
            for label, row in zip(labels, rows, strict=True):
                facts = [label.id, label.speaker, label.dialogue or "", split, job.fold, job.seed]
                prediction = job.classes[int(row.argmax())]
                shares = [f"{p:.9g}" for p in row]
                writer.writerow([*facts, label.label, prediction, *shares])
