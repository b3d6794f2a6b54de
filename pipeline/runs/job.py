"""Training jobs, one (seed, fold) each: what a job is, how it reports, and the files it writes.

A job on caches computes with one thread and its own seeded generators, so that on a CPU it gives
the same bytes alone and side by side with others.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from features.corpus.manifest import UNLABELLED, Label
from features.files.csv_text import write_csv
from features.process.devices import entered, plain_kernels
from pipeline.data.examples import Examples
from pipeline.data.label_table import in_split
from pipeline.data.source import ExampleSource
from pipeline.data.targets import TargetReader
from pipeline.model.base import FusionModel
from pipeline.model.outputs import Outputs
from pipeline.params.training import LAST, LOSS, TrainParams, monitors_of
from pipeline.runs.estimates import estimated
from pipeline.runs.layout import SCORED, Columns
from pipeline.runs.rows import columns_of, named, predicted_cells, reader_of
from pipeline.runs.tables import cells
from pipeline.runtime.checkpoints import Checkpoints
from pipeline.tracking import Tracked, Trackers
from pipeline.training.loop import Fitted
from pipeline.training.predict import evaluate, predict
from pipeline.training.ranks import ranks_of
from pipeline.training.scores import Scored, decoded
from pipeline.training.state import Epoch, Progress, Training


class ShowLine(Protocol):
    """Shows the progress of a job, as `LiveLines.show` does for a given key."""

    def __call__(self, text: str, *, done: bool = False) -> None:
        """Replace the job's line; `done`: this one stays, also in a terminal."""


@dataclass(frozen=True)
class Job:
    """Description of one training, which a process can run by itself.

    Attributes:
        title: Title of progress lines.
        kind: Plug-in of the model.
        args: Keywords of its constructor.
        slots: Cache folder by slot.
        labels: All labels of the corpus; none where there are `examples`.
        classes: Class names.
        params: The protocol.
        seed: Random seed for weights, dropout and batch order.
        fold: Number of the protocol's fold.
        out: Folder of the results.
        device: Where to compute.
        kept: Folder of the run's half-done trainings (`pipeline.runtime.resume`); None: none.
        inputs: Settings of the layers before the model (`pipeline.model.inputs`).
        resident: Share of the device's free memory for copies of caches
            (`pipeline.cached.resident`).
        asr: Cache folder of recognised words to test on (`pipeline.runs.recognised`); None: none.
        tracked: What experiment trackers show of it; None: nothing.
        targets: What the model learns; None: one class an utterance.
        ratings: Folder of what each rater said, where training values are estimated from it.
        examples: Data of all jobs, by arrays that processes share (`Examples.compact`); None: the
            job joins its caches and labels by itself.
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
    tracked: Tracked | None = None
    targets: TargetReader | None = None
    ratings: Path | None = None
    examples: Examples | None = None

    @property
    def outputs(self) -> Outputs:
        """Columns of the model's output."""
        return Outputs(tuple(self.classes)) if self.targets is None else self.targets.outputs

    @property
    def columns(self) -> Columns:
        """Columns of its files."""
        if self.targets is None:
            return Columns(("classes",), tuple(self.classes))
        return columns_of(self.targets)


@dataclass(frozen=True)
class Outcome:
    """What a job says of itself for run.json.

    Attributes:
        parameters: Numbers of the model's parameters, by key.
        skipped: Batches that had nothing to learn from.
        clipped: Predictions by attribute that were clipped to the scale.
    """

    parameters: Mapping[str, int]
    skipped: int = 0
    clipped: Mapping[str, int] = field(default_factory=dict)


class JobProgress(Progress):
    """Shows a job's epochs, keeps its checkpoints, and resumes it.

    Args:
        job: The job; without `kept`, no checkpoints are kept.
        show: Shows its lines; None: nothing is shown.
        seconds: Seconds between two checkpoints, as for `Checkpoints`.
        keep: Largest number of checkpoints.

    Attributes:
        trackers: Experiment trackers, which the caller opens around the training.
    """

    lasting = False  # whether lines of epochs stay in a terminal, where others are redrawn

    def __init__(
        self, job: Job, show: ShowLine | None, *, seconds: float | None = None, keep: int = 1
    ) -> None:
        self.job, self._show = job, show
        folder = job.kept and job.kept / f"seed_{job.seed}_fold_{job.fold}"
        self.checkpoints = Checkpoints(folder, self.message, seconds=seconds, keep=keep)
        self.trackers = Trackers(job.tracked, self.message)

    def begin(self, training: Training) -> None:
        """Resume the training from its last checkpoint."""
        if self.checkpoints.restore(training):
            done, current = len(training.history), training.current
            more = "" if current is None else f" and {current.batches} batches of the next"
            self.line(f"resumes after epoch {done}{more}", done=self.lasting)
        for epoch in training.history:
            self.trackers.log(epoch.epoch, _values(epoch))

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Show the epoch, and save a checkpoint if one is due, or the training has ended."""
        epoch = training.history[-1]
        self.line(
            f"epoch {epoch.epoch}/{self.job.params.epochs}, loss {epoch.train_loss:.3f}, "
            f"validation loss {epoch.valid_loss:.3f}, {self._score(epoch)}",
            done=self.lasting,
        )
        self.trackers.log(epoch.epoch, _values(epoch))
        if training.ranks.broadcast(ended or self.checkpoints.due()):
            self.checkpoints.save(training, ended=ended)

    def message(self, text: str) -> None:
        """Show a line that stays."""
        self.line(text, done=True)

    def finish(self, fitted: Fitted) -> None:
        """Show which epoch was kept, as the job's last line."""
        kept = fitted.history[fitted.best - 1]
        self.line(f"kept epoch {fitted.best}, {self._score(kept)}", done=True)

    def line(self, text: str, *, done: bool = False) -> None:
        """Show a line about this job."""
        if self._show is not None:
            job = self.job
            self._show(f"{job.title} seed {job.seed} fold {job.fold}: {text}", done=done)

    def _score(self, epoch: Epoch) -> str:
        monitor = self.job.params.monitor
        if monitor == LAST:  # an epoch is not kept for a score
            monitor = LOSS
        return f"{monitor} {epoch.score(monitor):.3f}"


def _values(epoch: Epoch) -> dict[str, float]:
    """Numbers of an epoch for trackers."""
    losses = {"lr": epoch.lr, "train/loss": epoch.train_loss, "valid/loss": epoch.valid_loss}
    return losses | {f"valid/{name}": score for name, score in epoch.scores.items()}


@contextlib.contextmanager
def repeatable(device: str, *, threads: int = 1, strict: bool | None = None) -> Iterator[None]:
    """Compute on a device with so many threads, deterministic algorithms only, and no TF32.

    Args:
        device: The device.
        threads: Of the processor.
        strict: Whether an operation without a deterministic algorithm is an error (RuntimeError);
            None: on a CPU. Else it warns, and its results may vary; so do gradients of attention
            on a GPU, for which torch takes a deterministic algorithm only where it is strict.
    """
    on_cpu = torch.device(device).type == "cpu"
    if not on_cpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS varies
    before, mode = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(
        mode=True, warn_only=not (on_cpu if strict is None else strict)
    )
    memory.fill_uninitialized_memory = False  # it costs time, and only finds bugs
    try:
        with entered(device), plain_kernels():
            yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(mode=mode, warn_only=lenient)
        torch.set_num_threads(before)


def parameter_count(model: nn.Module, *, trained: bool) -> int:
    """Number of parameters: all, or those that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def training_split(job: Job, examples: ExampleSource) -> Sequence[Label]:
    """Labels that a job is trained on, their attributes estimated as the protocol says."""
    train = examples.split(job.fold, "train")
    if job.targets is None or job.ratings is None:
        return train
    return estimated(train, job.targets, job.params.estimator, job.ratings)


def write_history(job: Job, fitted: Fitted) -> None:
    """Write `history.csv` of a job."""
    columns, rows = job.columns, []
    metrics = monitors_of(columns.tasks, columns.attributes)
    for epoch in fitted.history:
        losses = cells([epoch.lr, epoch.train_loss, epoch.valid_loss])
        if not columns.classes_alone:
            for task in columns.tasks:
                held = (epoch.train_tasks, epoch.valid_tasks)
                losses += cells(each.get(task, math.nan) for each in held)
        scores = cells(epoch.scores[name] for name in metrics)
        kept = int(epoch.epoch == fitted.best)
        rows.append([job.seed, job.fold, epoch.epoch, *losses, *scores, kept])
    write_csv(job.out / "history.csv", columns.history, rows)


def write_predictions(job: Job, model: FusionModel, examples: ExampleSource) -> dict[str, int]:
    """Write `predictions.csv` of a job: its validation and test split.

    Utterances of the split `unlabelled`, if there are any, go to `unlabelled.csv`, in which all
    truth is empty. Of several processes all compute them, and the first one writes.

    Returns:
        Number of predictions in predictions.csv by attribute that were clipped to the scale.
    """
    reader = reader_of(examples)
    rows: list[Iterator[list[object]]] = []  # made as they are written
    clipped = np.zeros(len(reader.outputs.attributes), np.int64)
    for split in SCORED:
        labels = examples.split(job.fold, split)
        found = evaluate(model, examples, labels)
        clipped += found.clipped if len(clipped) else 0
        rows.append(_rows(job, reader, split, labels, found))
    unlabelled = in_split(examples.labels, job.fold, UNLABELLED)
    others: Iterator[list[object]] | None = None
    if unlabelled:
        found = decoded(reader, predict(model, examples, unlabelled))
        others = _rows(job, reader, UNLABELLED, unlabelled, found)
    if ranks_of(examples).is_first:
        header = columns_of(reader).predictions
        write_csv(job.out / "predictions.csv", header, itertools.chain.from_iterable(rows))
        if others is not None:
            write_csv(job.out / "unlabelled.csv", header, others)
    return dict(zip(reader.outputs.attributes, clipped.tolist(), strict=True))


def _rows(
    job: Job, reader: TargetReader, split: str, labels: Sequence[Label], found: Scored
) -> Iterator[list[object]]:
    classes = reader.outputs.classes
    for number, (label, more) in enumerate(
        zip(labels, predicted_cells(reader, labels, found), strict=True)
    ):
        facts = [label.id, label.speaker, label.dialogue or "", split, job.fold, job.seed]
        truth = (label.label or "") if classes else ""
        yield [*facts, truth, named(classes, found.probabilities[number]), *more]
