"""Many jobs: side by side in processes on a CPU, one after the other on another device.

Whether several at once on one GPU pay has not been measured.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Any, Protocol, TypeVar

from features.process.terminal import LiveLines
from features.process.workers import WorkerPool

Message = tuple[int, str, bool]  # the job's number, what to show of it, whether it is done


class OnDevice(Protocol):
    """A job, as far as the pool needs to know it."""

    @property
    def device(self) -> str:
        """Where it computes."""


Job = TypeVar("Job", bound=OnDevice)
Result = TypeVar("Result")


def run_jobs(
    run: Callable[[Job, Any], Result], jobs: Sequence[Job], *, workers: int | None = None
) -> Iterator[Result]:
    """Run all jobs, yielding what `run` returns as each finishes.

    Args:
        run: A function of a module, called with a job and with what shows its progress.
        jobs: In order of preference.
        workers: Processes; None: as many as cores on a CPU, one on another device.
    """
    if workers is None:
        workers = available_cores() if jobs[0].device == "cpu" else 1
    lines = LiveLines()
    if min(workers, len(jobs)) == 1:
        for number, job in enumerate(jobs):
            yield run(job, partial(lines.show, number))
        return
    told: SimpleQueue[Message] = multiprocessing.get_context("spawn").SimpleQueue()
    with (
        _shown(told, lines),
        WorkerPool(min(workers, len(jobs)), _begin_worker, (told,)) as pool,
    ):
        futures = [pool.submit(_run_in_worker, run, number, job) for number, job in enumerate(jobs)]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_told: SimpleQueue[Message] | None = None


def _begin_worker(told: SimpleQueue[Message]) -> None:
    """Connect a worker to its parent."""
    global _told
    _told = told


def _run_in_worker(run: Callable[[Job, Any], Result], number: int, job: Job) -> Result:
    told = _told
    assert told is not None

    def tell(text: str, *, done: bool = False) -> None:
        told.put((number, text, done))

    return run(job, tell)


@contextlib.contextmanager
def _shown(told: SimpleQueue[Message], lines: LiveLines) -> Iterator[None]:
    """Show what workers tell while the context lasts."""
    over = threading.Event()

    def show() -> None:
        while not (over.is_set() and told.empty()):
            if told.empty():
                over.wait(0.05)
            else:
                number, text, done = told.get()
                lines.show(number, text, done=done)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1.0)  # a worker that was killed may have left half a message
