"""Synthetic caches, labels and jobs for benchmarks/training.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.stream import StreamSpec
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from pipeline.runtime.pool import available_cores

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
