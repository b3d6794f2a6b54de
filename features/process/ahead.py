"""Calls on a pool that are made some way ahead of their results, which come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(pool: Executor, call: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """As `pool.map`, which would queue all calls at once and hold all results.

    Args:
        pool: Pool of threads or processes.
        call: What is called with each item; what it raises is raised when its result is due.
        items: Items, asked for as there is room.
        ahead: Calls under way, or done, beside the one whose result is asked for.
    """
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(pool.submit(call, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
