"""Calls ahead of their results: in order, and no more of them under way than allowed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from features.process.ahead import in_order


def test_results_come_in_order_and_items_are_asked_for_as_there_is_room() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            asked.append(item)
            yield item

    with ThreadPoolExecutor(3) as pool:
        found = in_order(pool, lambda item: item * item, items(), ahead=3)
        assert next(found) == 0
        assert len(asked) == 4
        assert [*found] == [item * item for item in range(1, 10)]


def test_an_error_comes_when_its_result_is_due() -> None:
    with ThreadPoolExecutor(2) as pool:
        found = in_order(pool, lambda item: 6 // item, [3, 2, 0, 1], ahead=2)
        assert [next(found), next(found)] == [2, 3]
        with pytest.raises(ZeroDivisionError):
            next(found)
