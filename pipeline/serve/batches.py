"""Answers what waits together: one thread, which takes all that has come while it computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")
Pair = tuple[Q, "Future[A]"]


class Batcher(Generic[Q, A]):
    """Answers questions from any thread, in order, in one thread of its own.

    Nobody waits for a batch to fill: an idle thread takes a question at once, alone, and what comes
    meanwhile is the next batch.

    Args:
        answer: Answers some questions, in order.
        weight: What a question adds to a batch.
        count: Most questions of a batch.
        load: Most weight of a batch; a heavier question is a batch of its own.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        weight: Callable[[Q], float],
        *,
        count: int,
        load: float,
    ) -> None:
        self._answer, self._weight, self._count, self._load = answer, weight, count, load
        self._waiting: deque[Pair[Q, A]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def ask(self, question: Q) -> Future[A]:
        """The answer, or the exception that answering raised; cancelled once this is closed."""
        future: Future[A] = Future()
        with self._changed:
            if self._closed:
                future.cancel()
                return future
            self._waiting.append((question, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Finish the batch that is computed, and cancel what waits."""
        with self._changed:
            self._closed = True
            for _, future in self._waiting:
                future.cancel()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                taken = self._next()
            self._finish([pair for pair in taken if pair[1].set_running_or_notify_cancel()])

    def _next(self) -> list[Pair[Q, A]]:
        taken = [self._waiting.popleft()]
        load = self._weight(taken[0][0])
        while self._waiting and len(taken) < self._count:
            load += self._weight(self._waiting[0][0])
            if load > self._load:
                break
            taken.append(self._waiting.popleft())
        return taken

    def _finish(self, taken: Sequence[Pair[Q, A]]) -> None:
        if not taken:
            return
        try:
            answers = self._answer([question for question, _ in taken])
        except Exception as error:  # it belongs to who asked
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            for pair in taken:  # one that cannot be computed is no reason for the others to fail
                self._finish([pair])
            return
        for (_, future), found in zip(taken, answers, strict=True):
            future.set_result(found)
