"""Synthetic caches, labels and jobs for the benchmarks of training, and epochs that are timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.stream import StreamSpec
from pipeline.data.examples import Examples
from pipeline.model.checkpoint import make_model
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from pipeline.runtime.pool import available_cores
from pipeline.training.loop import begin, train_epoch
from pipeline.training.state import Training

CLASSES = ["angry", "calm", "happy", "sad"]
FRAMES = {"text": (5, 40), "speech": (50, 500)}


def make_labels(count: int) -> list[Label]:
    """Nine in ten for training."""
    splits = ["train"] * 18 + ["valid", "test"]
    return [
        Label(f"u{i}", CLASSES[i % len(CLASSES)], "s", splits=(splits[i % 20],))
        for i in range(count)
    ]


def make_caches(folder: Path, labels: list[Label], width: int) -> dict[str, Path]:
    """A cache folder by slot."""
    generator = np.random.default_rng(0)
    for slot, (least, most) in FRAMES.items():
        writer = CacheWriter(spec=StreamSpec(width), provenance={}, dtype="float16")
        rows = []
        for label in labels:
            frames = generator.standard_normal((generator.integers(least, most + 1), width))
            rows.append(writer.round(label.id, label.id, frames))
        writer.write(folder / slot / shard_name(0), rows)
    return {slot: folder / slot for slot in FRAMES}


def make_jobs(
    slots: Mapping[str, Path], labels: list[Label], args: Mapping[str, Any], out: Path, epochs: int
) -> list[Job]:
    """One seed for each core."""
    return [
        Job(
            title="heron",
            kind="heron",
            args=args,
            slots=slots,
            labels=labels,
            classes=CLASSES,
            params=TrainParams(epochs=epochs, accumulate=2),
            seed=seed,
            fold=0,
            out=out / str(seed),
            device="cpu",
        )
        for seed in range(available_cores())
    ]


def started(
    kind: str, args: Mapping[str, Any], params: TrainParams, data: Examples, device: str = "cpu"
) -> Training:
    """A training before its first epoch."""
    model = make_model(kind, args, data.specs, len(CLASSES)).to(device)
    return begin(model, data, data.split(0, "train"), params, seed=0)


def epoch_seconds(
    running: Training, params: TrainParams, data: Examples, *, strict: bool = True
) -> float:
    """One epoch with the same batches in the same order, the device's work included."""
    running.generator = np.random.default_rng(0)
    device = next(running.model.parameters()).device.type
    with deterministic(on=strict):
        begun = time.perf_counter()
        train_epoch(running, data, data.split(0, "train"), params)
        if device != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - begun


@contextmanager
def deterministic(*, on: bool) -> Iterator[None]:
    """As in a job, or not."""
    memory: Any = torch.utils.deterministic
    memory.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(mode=on, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=False)
        memory.fill_uninitialized_memory = True
