"""Cost of training besides the model: reading, saving, determinism; and jobs side by side.

    python -m benchmarks.training [--json] [--small] [--rounds 5] [--folder DISK]

Caches are made up: speech of 50-500 frames and text of 5-40, 384 wide, in float16; models are
`concat` and `heron` as in params.yaml, on one thread, as in a job. The contenders of a ratio take
turns, since machines are noisy.

- `reading`: seconds of an epoch's batches alone, over the epoch's, in percent (goal: below 10).
- `read_ahead`: an epoch over one whose batches a thread reads ahead; above 1, the thread would pay.
- `deterministic`: an epoch without `torch.use_deterministic_algorithms` over one with it; about 1:
  it costs nothing.
- `saving`: seconds and megabytes of one saved state, flushed to the disk. States are saved seldom
  enough that this is at most 3 % of the time of a training.
- `side_by_side`: the same jobs one after the other, over as many processes as cores; the start of
  the processes (importing torch) is part of it.
- `accelerator`: on a host that has one (`HERONRY_DEVICE`, else cuda), ways to feed it and to share
  it among seeds: `benchmarks.shared.device_ways`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.shared.device_ways import reading_ways, seeds_ways
from benchmarks.shared.rounds import interleave, ratio
from benchmarks.shared.training_inputs import (
    CLASSES,
    epoch_seconds,
    make_caches,
    make_jobs,
    make_labels,
    started,
)
from features.settings.locations import device as chosen_device
from pipeline.cached.run import run_job
from pipeline.data.batching import shuffled_batches
from pipeline.data.examples import Examples, join
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from pipeline.runtime.checkpoints import Checkpoints
from pipeline.runtime.pool import available_cores, run_jobs
from pipeline.training.loop import train_epoch

MODELS = {
    "concat": TrainParams(batch_size=16, lr=5e-4),
    "heron": TrainParams(batch_size=8, accumulate=2),
}


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    small: Annotated[bool, typer.Option("--small", help="Tiny, to try it out.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each contender runs.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="On the disk to measure.")] = None,
) -> None:
    """Measure and print ratios."""
    torch.set_num_threads(1)  # as training jobs
    args = {"d_model": 16} if small else {}
    result: dict[str, Any] = {"rounds": rounds, "cores": available_cores()}
    with tempfile.TemporaryDirectory(dir=folder, prefix="heronry-benchmark-") as made:
        labels = make_labels(24 if small else 160)
        slots = make_caches(Path(made), labels, 16 if small else 384)
        examples = join(slots, labels, CLASSES)
        for kind, params in MODELS.items():
            result[kind] = measure(kind, args, params, examples, rounds)
            result[kind]["saving"] = saving(kind, args, params, examples, Path(made) / "state")
        jobs = make_jobs(slots, labels, args, Path(made) / "runs", epochs=1 if small else 5)
        result["side_by_side"] = side_by_side(jobs, 1 if small else rounds)
        device = chosen_device()
        result["accelerator"] = (
            None if device == "cpu" else accelerator(device, args, examples, jobs[0], rounds)
        )
    print(json.dumps(result) if as_json else table(result))


def measure(
    kind: str, args: Mapping[str, Any], params: TrainParams, data: Examples, rounds: int
) -> dict[str, Any]:
    """Shares of an epoch."""
    running, labels = started(kind, args, params, data), data.split(0, "train")

    def reading() -> float:
        begun = time.perf_counter()
        for _ in shuffled_batches(data, labels, params.batch_size, np.random.default_rng(0)):
            pass
        return time.perf_counter() - begun

    contenders: dict[str, Callable[[], float]] = {
        "reading": reading,
        "strict": partial(epoch_seconds, running, params, data),
        "free": partial(epoch_seconds, running, params, data, strict=False),
        "ahead": partial(epoch_seconds, running, params, replace(data, ahead=True)),
    }
    interleave(contenders, 1)
    seconds = interleave(contenders, rounds)
    percent = [100 * r / e for r, e in zip(seconds["reading"], seconds["strict"], strict=True)]
    return {
        "utterances": len(labels),
        "epoch_seconds": round(statistics.median(seconds["strict"]), 3),
        "reading_percent": {
            "median": round(statistics.median(percent), 1),
            "range": [round(min(percent), 1), round(max(percent), 1)],
        },
        "read_ahead": ratio(seconds["strict"], seconds["ahead"]),
        "deterministic": ratio(seconds["free"], seconds["strict"]),
    }


def accelerator(
    device: str,
    args: Mapping[str, Any],
    data: Examples,
    job: Job,
    rounds: int,
    processes: Sequence[int] = (2, 4, 8),
) -> dict[str, Any]:
    """What a CPU does not have to choose from."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as in a job
    found: dict[str, Any] = {"device": device}
    for kind, params in MODELS.items():
        running = started(kind, args, params, data, device)
        epoch = partial(epoch_seconds, running, params)
        found[f"{kind}_reading"] = reading_ways(epoch, data, device, rounds)
    seeds = [replace(job, seed=k, out=job.out.parent / f"s{k}") for k in range(max(processes))]
    with silent():
        found["seeds"] = seeds_ways(seeds, device, processes, rounds)
    return found


def saving(
    kind: str, args: Mapping[str, Any], params: TrainParams, data: Examples, path: Path
) -> dict[str, Any]:
    """One save of a training under way, optimiser and best weights included."""
    running = started(kind, args, params, data)
    train_epoch(running, data, data.split(0, "train")[: params.batch_size], params)
    running.best_weights = {n: v.clone() for n, v in running.model.state_dict().items()}
    seconds = []
    for _ in range(3):
        checkpoints = Checkpoints(path, print)
        begun = time.perf_counter()
        assert checkpoints.save(running)
        seconds.append(time.perf_counter() - begun)
        size = sum(file.stat().st_size for file in path.iterdir())
        shutil.rmtree(path)
    return {
        "seconds": round(statistics.median(seconds), 3),
        "megabytes": round(size / 1e6, 1),
    }


def side_by_side(jobs: list[Job], rounds: int) -> dict[str, Any]:
    """All jobs by one process and by many."""

    def run(workers: int, some: list[Job]) -> float:
        begun = time.perf_counter()
        with silent():
            for _ in run_jobs(run_job, some, workers=workers):
                pass
        return time.perf_counter() - begun

    cores = available_cores()
    seconds = interleave({"one": partial(run, 1, jobs), "many": partial(run, cores, jobs)}, rounds)
    return {
        "jobs": len(jobs),
        "sequential_seconds": round(statistics.median(seconds["one"]), 2),
        "speedup": ratio(seconds["one"], seconds["many"]),
    }


@contextmanager
def silent() -> Iterator[None]:
    """Without the lines that jobs write."""
    kept, sys.stderr = sys.stderr, io.StringIO()
    try:
        yield
    finally:
        sys.stderr = kept


def table(result: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = []
    for kind in MODELS:
        found = result[kind]
        lines.append(f"{kind}: {found['epoch_seconds']} s an epoch of {found['utterances']}")
        lines += [f"  {part:16} {found[part]}" for part in list(found)[2:]]
    lines.append(f"side by side on {result['cores']} cores: {result['side_by_side']}")
    if result["accelerator"] is None:
        return "\n".join([*lines, "accelerator: left out, since there is none here"])
    lines += [f"accelerator: {name} {found}" for name, found in result["accelerator"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
