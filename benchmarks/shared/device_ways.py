"""Ways to feed and share an accelerator, for benchmarks/training.py; not for a CPU.

`resident` copies the caches to the device once; `streamed` reads one batch ahead into page-locked
memory; `waited_for` reads a batch when it is due, as on a CPU. Processes side by side are started
for every round, which is part of their cost.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.shared.rounds import interleave, ratio
from pipeline.cached.resident import FREE_PART, placed, release
from pipeline.cached.run import run_job
from pipeline.data.examples import Examples
from pipeline.runs.job import Job
from pipeline.runtime.pool import run_jobs


def reading_ways(
    epoch: Callable[[Examples], float], examples: Examples, device: str, rounds: int
) -> dict[str, Any]:
    """The same epochs with batches from the device, from the host ahead of time, and in time.

    Args:
        epoch: Seconds of one epoch over these examples, the device's work included.
        examples: As `join` gives them.
        device: Where `epoch` computes.
        rounds: How often each way is measured.
    """
    ways = {
        "resident": placed(examples, device, part=FREE_PART),
        "streamed": placed(examples, device, part=0.0),
        "waited_for": examples,
    }
    seconds = _measured({name: partial(epoch, given) for name, given in ways.items()}, rounds)
    release()
    return {
        "fits": bool(ways["resident"].residents),
        "epoch_seconds": _medians(seconds),
        "resident_speedup": ratio(seconds["streamed"], seconds["resident"]),
        "streamed_speedup": ratio(seconds["waited_for"], seconds["streamed"]),
    }


def seeds_ways(
    jobs: Sequence[Job], device: str, processes: Sequence[int], rounds: int
) -> dict[str, Any]:
    """All jobs on one device: one after the other, and in several processes that share it.

    Args:
        jobs: One a seed; made for a CPU.
        device: That all use.
        processes: Numbers of processes to try beside one.
        rounds: How often each way is measured.
    """

    def run(count: int) -> float:
        part = FREE_PART / count
        begun = time.perf_counter()
        for _ in run_jobs(
            run_job, [replace(job, device=device, resident=part) for job in jobs], workers=count
        ):
            pass
        release()
        return time.perf_counter() - begun

    ways = {str(count): partial(run, count) for count in (1, *processes)}
    seconds = interleave(ways, rounds)
    return {
        "jobs": len(jobs),
        "seconds_by_processes": _medians(seconds),
        "speedup": {str(count): ratio(seconds["1"], seconds[str(count)]) for count in processes},
    }


def _measured(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    interleave(ways, 1)  # first use of a device compiles and allocates
    return interleave(ways, rounds)


def _medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: round(statistics.median(each), 3) for name, each in seconds.items()}
