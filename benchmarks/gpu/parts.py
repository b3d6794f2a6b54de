"""The parts of the run: what is proven first, and what is measured then.

Only names and numbers, so that the process that supervises the parts loads none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        name: Its name, as `--only` takes it.
        title: What the page calls it.
        work: `module:function`, called with a `Bench`, a `Report` and the arguments.
        seconds: Time that it should take on an H200 at most; twice that, or a minute, ends it.
        arguments: More arguments of the function.
    """

    name: str
    title: str
    work: str
    seconds: float
    arguments: tuple[Any, ...] = ()


def _features(network: str, seconds: float) -> Part:
    title = f"{network}: three shards, against the CPU"
    return Part(
        f"features-{network}", title, "benchmarks.gpu.features:features", seconds, (network,)
    )


def _speed(network: str, clips: int, loop_clips: int, seconds: float) -> Part:
    arguments = (network, clips, loop_clips)
    title = f"{network}, clips of 5 s"
    return Part(f"speed-{network}", title, "benchmarks.gpu.speed:extraction", seconds, arguments)


def _training(name: str, title: str, function: str, seconds: float) -> Part:
    return Part(name, title, f"benchmarks.gpu.training:{function}", seconds)


CORRECT = (
    _features("hubert-base", 20),
    _features("wavlm-base", 15),
    _features("whisper-tiny", 10),
    _features("roberta-base", 10),
    _features("emotion2vec", 12),
    _features("ced-small", 10),
    _features("rmvpe", 15),
    Part("resumed", "Extraction stopped and run again", "benchmarks.gpu.features:resumed", 10),
    Part(
        "memory",
        "Extraction in too little memory",
        "benchmarks.gpu.features:too_little_memory",
        20,
    ),
    Part(
        "several-devices",
        "Extraction on all GPUs at once",
        "benchmarks.gpu.features:several_devices",
        30,
    ),
    _training("cached", "HERON on resident and streamed caches", "cached", 20),
    _training("vectors", "Vectors of live backbones, twice", "vectors", 10),
    _training("steps", "End-to-end steps in three precisions", "steps", 20),
    _training(
        "steps-memory", "End-to-end steps in too little memory", "steps_in_too_little_memory", 15
    ),
    _training("two-processes", "End-to-end steps of two processes", "two_processes", 40),
)
SPEED = (
    _speed("hubert-base", 4096, 256, 45),
    _speed("whisper-large-v3", 512, 32, 60),
    _speed("hubert-large", 3072, 96, 40),
    Part("heron", "HERON, one seed and ten", "benchmarks.gpu.speed:heron", 120),
    Part("tuning", "End-to-end steps against Trainer", "benchmarks.gpu.speed:tuning", 35),
    _speed("wavlm-large", 1024, 96, 30),
    Part("reading", "HERON's epochs by way of reading", "benchmarks.gpu.speed:reading", 40),
    _speed("emotion2vec", 2048, 128, 20),
    _speed("ced-small", 2048, 128, 15),
    _speed("rmvpe", 512, 96, 20),
)
PARTS = CORRECT + SPEED
