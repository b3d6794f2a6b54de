"""Training jobs: one (seed, fold) each, side by side on a CPU.

A job always computes with one thread and its own seeded generators, so that it gives the same bytes
alone and in company.
"""

from __future__ import annotations

import concurrent.futures
import csv
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from features.manifest import Label
from pipeline.checkpoint import make_model, save_model
from pipeline.data import join
from pipeline.metrics import MONITORS
from pipeline.params import TrainParams
from pipeline.runs import HISTORY, PREDICTIONS
from pipeline.training import Epoch, Fitted, evaluate, fit


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


def run_jobs(jobs: Sequence[Job], *, workers: int | None = None) -> Iterator[int]:
    """Run all jobs, yielding the parameter count as each finishes.

    Args:
        jobs: In order of preference.
        workers: Processes; None: as many as cores on a CPU, one on another device.
    """
    if workers is None:
        workers = available_cores() if jobs[0].device == "cpu" else 1
    if min(workers, len(jobs)) == 1:
        threads = torch.get_num_threads()
        try:
            yield from map(run_job, jobs)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), context) as pool:
        futures = [pool.submit(run_job, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_job(job: Job) -> int:
    """Train, predict, and write the files of `job.out`; returns the model's size."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    # Whoever starts jobs has verified the caches: each job again would read all of them again.
    examples = join(job.slots, job.labels, job.classes, verify=False)
    splits = {name: examples.split(job.fold, name) for name in ("train", "valid", "test")}
    model = make_model(job.kind, job.args, examples.specs, len(job.classes)).to(job.device)
    fitted = fit(
        model,
        examples,
        train=splits["train"],
        valid=splits["valid"],
        params=job.params,
        seed=job.seed,
        tell=lambda epoch: _tell(job, epoch),
    )
    specs = examples.specs
    save_model(job.out, model, kind=job.kind, args=job.args, specs=specs, classes=job.classes)
    _write_history(job, fitted)
    with (job.out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*PREDICTIONS, *(f"p_{name}" for name in job.classes)])
        for split in ("valid", "test"):
            labels = splits[split]
            rows = evaluate(model, examples, labels).probabilities
            for label, row in zip(labels, rows, strict=True):
                facts = [label.id, label.speaker, label.dialogue or "", split, job.fold, job.seed]
                prediction = job.classes[int(row.argmax())]
                shares = [f"{p:.9g}" for p in row]
                writer.writerow([*facts, label.label, prediction, *shares])
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_history(job: Job, fitted: Fitted) -> None:
    with (job.out / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HISTORY)
        for row in fitted.history:
            losses = [f"{value:.9g}" for value in (row.lr, row.train_loss, row.valid_loss)]
            scores = [f"{row.scores[name]:.9g}" for name in MONITORS]
            kept = int(row.epoch == fitted.best)
            writer.writerow([job.seed, job.fold, row.epoch, *losses, *scores, kept])


def _tell(job: Job, epoch: Epoch) -> None:
    score = f"{job.params.monitor} {epoch.scores[job.params.monitor]:.3f}"
    line = (
        f"{job.title} seed {job.seed} fold {job.fold}: epoch {epoch.epoch}/{job.params.epochs}, "
        f"loss {epoch.train_loss:.3f}, validation loss {epoch.valid_loss:.3f}, {score}\n"
    )
    sys.stderr.write(line)
    sys.stderr.flush()
