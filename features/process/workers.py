"""Pool of worker processes that end with the process that started them, even if it is killed.

Workers wait for work on a pipe whose other end their siblings hold open too. Without a watchdog
they would wait for ever after their parent was killed, each with the memory of a network.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from features.errors import MachineError
from features.process.machine_errors import with_machine_errors

P = ParamSpec("P")
R = TypeVar("R")


class WorkerPool(ProcessPoolExecutor):
    """Pool of new processes that end with this one, and leave Ctrl-C to it.

    On leaving the context the pool waits for the work under way, even after an error; but after a
    signal it terminates the workers first.

    Args:
        count: Number of workers.
        begin: Function that each worker calls first.
        given: Arguments of `begin`.
    """

    def __init__(
        self, count: int, begin: Callable[..., Any] | None = None, given: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(count, multiprocessing.get_context("spawn"), _begin, (begin, given))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit a call, whose errors of the machine come back as `MachineError`."""
        with sigint_blocked():  # submitting starts a process where none is idle
            return super().submit(with_machine_errors, fn, *args, **kwargs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the work under way, unless a signal ends this process.

        Raises:
            MachineError: In place of a `BrokenProcessPool`: a worker was killed.
        """
        if error is not None and not isinstance(error, Exception):
            for process in multiprocessing.active_children():
                process.terminate()
        self.shutdown(wait=True, cancel_futures=error is not None)
        if isinstance(error, BrokenProcessPool):
            raise MachineError(
                "a worker process ended before its work was done: it was killed, as the system "
                "does when memory runs out (`dmesg` says so). Run the same command again, which "
                "resumes from what was finished; if memory is short, with fewer workers"
            ) from error


def end_with_parent() -> None:
    """Start a watchdog that ends this process as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


@contextlib.contextmanager
def sigint_blocked() -> Iterator[None]:
    """Context whose new processes ignore Ctrl-C, since their parent ends them.

    A terminal sends it to all of them, and each would print a traceback.
    """
    # Started beforehand, since starting it unblocks the signal.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(begin: Callable[..., Any] | None, given: tuple[Any, ...]) -> None:
    end_with_parent()
    if begin is not None:
        begin(*given)


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
