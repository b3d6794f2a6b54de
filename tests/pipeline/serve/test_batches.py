"""Questions that come while a batch is computed are the next batch, within its bounds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest

from pipeline.serve.batches import Batcher


class Slow:
    """Answers with the double, once it is let go; -1 breaks a whole batch."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self, questions: Sequence[float]) -> list[float]:
        self.batches.append([*questions])
        self.began.set()
        assert self.go.wait(30)
        if -1 in questions:
            raise ArithmeticError("minus one")
        return [2 * each for each in questions]


def asked(slow: Slow, first: float, then: Sequence[float], **bounds: float) -> list[float | str]:
    """Answers to a first question and to those that come while it is computed."""
    batcher = Batcher(slow, abs, count=int(bounds.get("count", 9)), load=bounds.get("load", 99.0))
    futures = [batcher.ask(first)]
    assert slow.began.wait(30)
    futures += [batcher.ask(each) for each in then]
    slow.go.set()
    found: list[float | str] = []
    for future in futures:
        error = future.exception(30)
        found.append(future.result() if error is None else str(error))
    batcher.close()
    return found


def test_what_comes_meanwhile_is_one_batch() -> None:
    slow = Slow()
    assert asked(slow, 1, [2, 3, 4]) == [2, 4, 6, 8]
    assert slow.batches == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("bounds", "batches"),
    [({"count": 2}, [[2, 3], [4]]), ({"load": 5}, [[2, 3], [4]]), ({"load": 1}, [[2], [3], [4]])],
)
def test_a_batch_is_bounded(bounds: dict[str, float], batches: list[list[float]]) -> None:
    slow = Slow()
    assert asked(slow, 1, [2, 3, 4], **bounds) == [2, 4, 6, 8]
    assert slow.batches[1:] == batches


def test_one_that_breaks_fails_alone() -> None:
    assert asked(Slow(), 1, [2, -1, 4]) == [2, 4, "minus one", 8]


def test_one_that_is_cancelled_is_not_computed() -> None:
    slow = Slow()
    batcher = Batcher(slow, abs, count=9, load=99.0)
    futures = [batcher.ask(1)]
    assert slow.began.wait(30)
    futures += [batcher.ask(each) for each in (2, 3)]
    assert not futures[0].cancel()
    assert futures[1].cancel()
    slow.go.set()
    assert (futures[0].result(30), futures[2].result(30)) == (2, 6)
    batcher.close()
    assert slow.batches == [[1], [3]]


def test_closing_cancels_what_waits() -> None:
    slow = Slow()
    batcher = Batcher(slow, abs, count=9, load=99.0)
    first = batcher.ask(1)
    assert slow.began.wait(30)
    waits = batcher.ask(2)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(CancelledError):
        waits.result(30)
    slow.go.set()
    closing.join()
    assert first.result() == 2
    assert batcher.ask(3).cancelled()
