"""Jobs side by side: a worker that is killed ends the run with a message, and at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import pytest

from features.errors import MachineError
from pipeline.runtime.pool import run_jobs


@dataclass(frozen=True)
class Job:
    number: int
    device: str = "cpu"


def killed_or_slow(job: Job, _show: Any) -> None:
    """The first job is killed as the system kills when memory runs out; the others take long."""
    if job.number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def test_killed_worker_ends_the_run_with_a_message() -> None:
    before, started = multiprocessing.active_children(), time.monotonic()
    with pytest.raises(MachineError, match=r"a worker process .* killed.* memory.* the same comma"):
        list(run_jobs(killed_or_slow, [Job(number) for number in range(3)], workers=2))
    assert time.monotonic() - started < 60
    assert set(multiprocessing.active_children()) <= set(before)


def squared(job: Job, show: Any) -> int:
    show(f"job {job.number}", done=True)
    return job.number**2


@pytest.mark.parametrize("workers", [1, 2])
def test_results_of_all_jobs_and_their_lines(
    workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [Job(number) for number in range(4)]
    assert sorted(run_jobs(squared, jobs, workers=workers)) == [0, 1, 4, 9]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == [f"job {number}" for number in range(4)]
