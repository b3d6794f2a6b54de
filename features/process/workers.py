"""Worker processes that end when the process that started them does, however it ends.

A pool's workers wait for work on a pipe whose other end their siblings hold open too, so that by
themselves they would wait for ever once their parent was killed: with the memory of a network each.
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
    """Fresh processes that end with this one, and leave Ctrl-C to it.

    As a context it waits for the work under way, even after an error, but not after what ends this
    process: then the workers are ended first.

    Args:
        count: How many.
        begin: Called first in each.
        given: What with.
    """

    def __init__(
        self, count: int, begin: Callable[..., Any] | None = None, given: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(count, multiprocessing.get_context("spawn"), _begin, (begin, given))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As that of every pool; errors of the machine come back as `HeronryError`s."""
        with unreached_by_ctrl_c():  # a process is started when it is first needed
            return super().submit(with_machine_errors, fn, *args, **kwargs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is under way, if there is time.

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
    """End this process at once when the one that started it has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


@contextlib.contextmanager
def unreached_by_ctrl_c() -> Iterator[None]:
    """Processes that are started within do not hear of Ctrl-C: whoever started them ends them.

    A terminal sends it to all of them, and each would print a traceback.
    """
    # It would let the signal through again, if it was started within.
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
