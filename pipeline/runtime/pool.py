"""Runs many jobs: side by side in processes on a CPU, one after the other on another device.

Processes are those of `features.process.workers.WorkerPool`, as in extraction: they end with this
process, and a worker that is killed ends the run with a message. Whether several jobs at once on
one GPU are faster has not been measured.
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

Message = tuple[int, str, bool]  # number of the job, its line, whether it is the last one


class OnDevice(Protocol):
    """What the pool needs to know of a job."""

    @property
    def device(self) -> str:
        """Where it computes."""


Job = TypeVar("Job", bound=OnDevice)
Result = TypeVar("Result")


def run_jobs(
    run: Callable[[Job, Any], Result], jobs: Sequence[Job], *, workers: int | None = None
) -> Iterator[Result]:
    """Run all jobs, yielding each result as its job finishes.

    Args:
        run: Function of a module, called with a job and with a function that shows its progress.
        jobs: Jobs in order of preference.
        workers: Number of processes; None: as many as cores on a CPU, one on another device.

    Raises:
        MachineError: If a worker is killed.
    """
    if workers is None:
        workers = available_cores() if jobs[0].device == "cpu" else 1
    lines = LiveLines()
    if min(workers, len(jobs)) == 1:
        for number, job in enumerate(jobs):
            yield run(job, partial(lines.show, number))
        return
    # Workers only put messages: this process alone draws in the terminal.
    messages: SimpleQueue[Message] = multiprocessing.get_context("spawn").SimpleQueue()
    with (
        _showing(messages, lines),
        WorkerPool(min(workers, len(jobs)), _begin_worker, (messages,)) as pool,
    ):
        futures = [pool.submit(_run_in_worker, run, number, job) for number, job in enumerate(jobs)]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_messages: SimpleQueue[Message] | None = None  # of a worker


def _begin_worker(messages: SimpleQueue[Message]) -> None:
    global _messages
    _messages = messages


def _run_in_worker(run: Callable[[Job, Any], Result], number: int, job: Job) -> Result:
    messages = _messages
    assert messages is not None

    def show(text: str, *, done: bool = False) -> None:
        messages.put((number, text, done))

    return run(job, show)


@contextlib.contextmanager
def _showing(messages: SimpleQueue[Message], lines: LiveLines) -> Iterator[None]:
    """Show the messages of workers within this context."""
    over = threading.Event()

    def show() -> None:
        while not (over.is_set() and messages.empty()):
            if messages.empty():
                over.wait(0.05)
            else:
                number, text, done = messages.get()
                lines.show(number, text, done=done)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1.0)  # a worker that was killed may have left half a message
