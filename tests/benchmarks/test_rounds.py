"""Contenders take turns, and a turn that lost time to the host is repeated."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.shared import rounds
from benchmarks.shared.rounds import interleave, ratio, stolen_seconds


def test_another_contender_begins_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "stolen_seconds", lambda: 0.0)
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleave({"a": lambda: turn("a"), "b": lambda: turn("b")}, 2)
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": [1.0, 4.0], "b": [2.0, 3.0]}
    assert ratio(found["a"], found["b"]) == {"median": 0.92, "range": [0.5, 1.33]}


@pytest.mark.parametrize(
    ("stolen", "counted"),
    [([9.0, 0.0], 2.0), ([9.0, 7.0, 8.0, 9.0, 9.0], 2.0), ([0.0], 1.0)],
)
def test_the_quietest_try_counts(
    stolen: list[float], counted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to five tries: the first quiet one ends them."""
    counter = list(itertools.chain.from_iterable((0.0, lost) for lost in stolen))
    numbers, readings = itertools.count(1), iter(counter)
    monkeypatch.setattr(rounds, "stolen_seconds", lambda: next(readings))
    monkeypatch.setattr(
        "benchmarks.shared.rounds.time.perf_counter", itertools.count(0.0, 10.0).__next__
    )
    assert interleave({"a": lambda: float(next(numbers))}, 1) == {"a": [counted]}
    assert next(readings, None) is None


def test_any_loss_may_be_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = itertools.count(0.0, 1e6)
    monkeypatch.setattr(rounds, "stolen_seconds", readings.__next__)
    numbers = itertools.count(1)
    assert interleave({"a": lambda: float(next(numbers))}, 3, quiet=math.inf) == {
        "a": [1.0, 2.0, 3.0]
    }


def test_what_was_stolen_only_grows() -> None:
    before = stolen_seconds()
    assert 0 <= before <= stolen_seconds()
