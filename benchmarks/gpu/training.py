"""Training on a GPU: as on the CPU, in any precision, with too little memory, on several GPUs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.features import (
    TOLERANCE,
    peak_bytes,
    relative_error,
    short_of_memory,
    weight_bytes,
)
from benchmarks.gpu.part import Bench, Report, SkippedError
from benchmarks.shared.clips import between, make_clips
from benchmarks.shared.our_tuning import Stopwatch, TuneTask
from benchmarks.shared.training_inputs import CLASSES, make_caches, make_labels
from features.backbone.entry import BackboneEntry
from pipeline.cached.resident import FREE_PART, release
from pipeline.cached.run import run_job
from pipeline.e2e.extras import live_vectors
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job, repeatable
from pipeline.training.loop import fit
from pipeline.training.ranks import ALONE, Ranks

# Of trained models: an optimiser divides by the size of a gradient, so that the smallest ones,
# which are rounding alone, move weights as far as large ones do.
LOSS = 1e-3
PROBABILITY = 1e-2
# Of the loss before the first update: 24, 11 and 8 bits.
FIRST_LOSS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
FITTING_ROWS = 2  # of the pretended memory of a CPU
LOSSES = "losses.json"  # of two processes
SHARED_CLIPS, SHARED_BATCH = 14, 3  # of a batch, one process has two rows and the other has one


def cached(bench: Bench, report: Report) -> None:
    """HERON on caches that lie on the device, or are streamed to it, against the CPU."""
    device, jobs = bench.devices[-1], {}  # the last one: 0 is what a mistake would use
    labels = make_labels(40 if bench.quick else 160)
    slots = make_caches(bench.folder / "caches", labels, 16 if bench.quick else 256)
    still = {"dropout": 0.0, "modality_dropout": 0.0}
    args = still | ({"d_model": 16} if bench.quick else {})
    for name, place, part in (
        ("cpu", "cpu", 0.0),
        ("resident", device, FREE_PART),
        ("streamed", device, 0.0),
        ("again", device, FREE_PART),
    ):
        jobs[name] = Job(
            title=name,
            kind="heron",
            args=args,
            slots=slots,
            labels=labels,
            classes=CLASSES,
            params=TrainParams(epochs=2, accumulate=2),
            seed=0,
            fold=0,
            out=bench.folder / name,
            device=place,
            resident=part,
        )
    with _warnings_about_determinism() as found:
        for job in jobs.values():
            run_job(job)
            release()
    report.add(operations_without_a_deterministic_algorithm=sorted(found))
    out = {name: job.out for name, job in jobs.items()}
    for name in ("resident", "streamed"):
        loss = _largest(out["cpu"], out[name], "history.csv", ("train_loss", "valid_loss"))
        report.check(f"losses, {name} on {device} against the CPU", loss, at_most=LOSS)
        classes = tuple(f"p_{each}" for each in CLASSES)
        other = _largest(out["cpu"], out[name], "predictions.csv", classes)
        report.check(f"probabilities, {name} on {device}", other, at_most=PROBABILITY)
    for name in ("streamed", "again"):
        same = [(out[each] / "predictions.csv").read_bytes() for each in ("resident", name)]
        report.check(f"resident and {name}: files that differ", same[0] != same[1], at_most=0)


def vectors(bench: Bench, report: Report) -> None:
    """Vectors of live backbones, from which probes are fitted: twice, and against the CPU."""
    device, found = bench.devices[-1], []
    task = _task(bench, "cpu", "float32")
    for place in ("cpu", device, device):
        own = dataclasses.replace(task, device=place)
        examples = own.examples()
        with repeatable(place, threads=torch.get_num_threads()):
            made = live_vectors(own.model(examples), examples, examples.labels)
        found.append(made["speech"])
    report.check("numbers that differ the second time", _differing(found[1], found[2]), at_most=0)
    errors = (relative_error(*map(torch.from_numpy, pair)) for pair in zip(*found[:2], strict=True))
    allowed = TOLERANCE["float32"]
    report.check("error of the worst vector against the CPU", max(errors), at_most=allowed)


def steps(bench: Bench, report: Report) -> None:
    """Steps of an end-to-end training in each precision, against the CPU in float32."""
    device, task = bench.devices[-1], _task(bench, "cpu", "float32")
    wanted = trained(task).losses
    report.add(steps=len(wanted))
    for precision, allowed in FIRST_LOSS.items():
        found = trained(dataclasses.replace(task, device=device, precision=precision)).losses
        what = f"{precision} on {device}"
        error = abs(found[0] - wanted[0]) / wanted[0]
        report.check(f"first loss, {what}", error, at_most=allowed)
        broken = sum(not math.isfinite(loss) for loss in found)
        report.check(f"losses that are not finite, {what}", broken, at_most=0)
        report.add(**{f"last loss less the CPU's, {precision}": found[-1] - wanted[-1]})


def steps_in_too_little_memory(bench: Bench, report: Report) -> None:
    """Steps of an end-to-end training whose batches do not fit: the same losses in halves."""
    # Activations far above the weights, of which each half fits, beside a workspace of cuDNN.
    durations = between(0.3, 0.6, 10) if bench.quick else between(6.0, 8.0, 34)
    clips = make_clips(bench.folder / "audio", durations)
    entry, size = bench.entry("hubert-still"), 8 if bench.quick else 16
    task = TuneTask(entry, clips, bench.devices[0], "float32", size, threads=2)
    with peak_bytes(bench) as peak:
        wanted = trained(task).losses
    # Gradients and the two averages of the optimiser are as large as the weights.
    with short_of_memory(bench, peak[0], fixed=4 * weight_bytes(task.entry)) as free:
        report.add(gib_needed=peak[0] / 2**30, gib_left=free / 2**30)
        found = trained(task, rows=FITTING_ROWS if bench.device == "cpu" else None)
    report.check("messages about batches in halves", len(found.messages), at_least=1)
    error = max(abs(a - b) / a for a, b in zip(wanted, found.losses, strict=True))
    report.check("largest difference of a loss", error, at_most=LOSS)


def two_processes(bench: Bench, report: Report) -> None:
    """Two processes, each with a GPU: the losses of one process."""
    if bench.device == "cuda" and len(bench.devices) < 2:
        raise SkippedError("this machine has one cuda; two GPUs are needed")
    checkpoint = str(bench.entry("hubert-still").options["checkpoint"])
    wanted = shared_losses(checkpoint, bench.folder / "alone", bench.devices[0])
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "benchmarks.gpu.launched"]
    subprocess.run(
        [*command, checkpoint, str(bench.folder), bench.device],
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        check=True,
    )
    found = json.loads((bench.folder / LOSSES).read_text(encoding="utf-8"))
    report.add(steps=len(wanted))
    error = max(abs(a - b) / a for a, b in zip(wanted, found, strict=True))
    report.check("largest difference of a loss", error, at_most=LOSS)


def shared_losses(checkpoint: str, folder: Path, device: str, ranks: Ranks = ALONE) -> list[float]:
    """Losses of the steps that several processes take together, or one alone.

    Args:
        checkpoint: HuBERT without dropout.
        folder: To be made, for the clips.
        device: Device of this process.
        ranks: The processes.
    """
    entry = BackboneEntry("hubert", "speech_encoder", options={"checkpoint": checkpoint})
    clips = make_clips(folder, between(0.4, 0.9, SHARED_CLIPS))
    return trained(TuneTask(entry, clips, device, "float32", SHARED_BATCH), ranks=ranks).losses


class Recorded(Stopwatch):
    """Also keeps the messages of a training."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        """Keep a message."""
        self.messages.append(text)


def trained(task: TuneTask, *, rows: int | None = None, ranks: Ranks = ALONE) -> Recorded:
    """One epoch, computed as in a job.

    Args:
        task: What to train.
        rows: Pretends that batches of more rows do not fit; None: no limit.
        ranks: Processes that train together.
    """
    with repeatable(task.device, threads=torch.get_num_threads()):
        examples = dataclasses.replace(task.examples(), ranks=ranks)
        watch, model = Recorded(task.device), task.model(examples)
        ranks.broadcast_weights(model)
        if rows is not None:
            model.forward = _limited(model.forward, rows)  # type: ignore[method-assign]
        fit(
            model,
            examples,
            train=examples.split(0, "train"),
            valid=examples.split(0, "valid"),
            params=task.params(),
            seed=0,
            progress=watch,
        )
    return watch


def _limited(forward: Callable[..., Any], rows: int) -> Callable[..., Any]:
    def limited(batch: Any) -> Any:
        if len(batch.ids) > rows:
            raise torch.OutOfMemoryError("pretended")
        return forward(batch)

    return limited


def _task(bench: Bench, device: str, precision: str) -> TuneTask:
    """HuBERT-base below a small head, with 18 clips of up to 4 s, two of which are validated."""
    durations = between(0.3, 0.6, 10) if bench.quick else between(1.0, 4.0, 18)
    clips = make_clips(bench.folder / "audio", durations)
    return TuneTask(bench.entry("hubert-still"), clips, device, precision, batch_size=4, threads=2)


@contextlib.contextmanager
def _warnings_about_determinism() -> Iterator[set[str]]:
    """Yields the first words of torch's warnings about operations that may vary."""
    found: set[str] = set()
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
    finally:
        torch.set_warn_always(before)
    texts = [str(each.message) for each in caught]
    found |= {text.partition(" does not have")[0] for text in texts if "determinis" in text}


def _largest(one: Path, other: Path, file: str, columns: Sequence[str]) -> float:
    """Largest difference of numbers of a table, where they are above 1 a relative one."""
    tables = []
    for folder in (one, other):
        with (folder / file).open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        tables.append(np.array([[float(row[name]) for name in columns] for row in rows]))
    return float((abs(tables[0] - tables[1]) / np.maximum(1.0, abs(tables[0]))).max())


def _differing(one: Any, other: Any) -> int:
    return int((one != other).sum())
