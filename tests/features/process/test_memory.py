"""Work that does not fit is cut in halves until it does, and comparable work beforehand."""

from __future__ import annotations

import pytest
import torch

from features.backbone.base import Inputs
from features.process.memory import DoesNotFitError, Halver


def of(count: int) -> Inputs:
    ids = tuple(str(number) for number in range(count))
    return Inputs(ids, {"x": torch.arange(2 * count).reshape(count, 2)})


@pytest.fixture
def halver() -> Halver[Inputs]:
    return Halver(lambda i: len(i.ids), lambda i: i.tensors["x"].numel(), Inputs.between)


def test_parts_are_the_work(halver: Halver[Inputs]) -> None:
    work = of(7)
    for limit, counts in ((None, [7]), (15, [7]), (14, [3, 4]), (8, [3, 2, 2]), (1, [1] * 7)):
        halver.limit = limit
        parts = list(halver.parts(work))
        assert [len(part.ids) for part in parts] == counts
        assert sum((part.ids for part in parts), ()) == work.ids
        assert torch.equal(torch.cat([part.tensors["x"] for part in parts]), work.tensors["x"])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_what_did_not_fit_is_cut_from_then_on(
    halver: Halver[Inputs], error: type[Exception]
) -> None:
    def compute(inputs: Inputs) -> int:
        if len(inputs.ids) > 3:
            raise error("out of memory. Tried to allocate a lot")
        return len(inputs.ids)

    with pytest.raises(DoesNotFitError, match=r"^out of memory$") as caught:
        halver.attempt(of(7), compute)
    assert caught.value.__context__ is None  # which would keep the tensors of `compute`
    first, second = halver.parts(of(7))
    assert halver.attempt(first, compute) == 3
    with pytest.raises(DoesNotFitError):
        halver.attempt(second, compute)
    assert halver.limit == 8
    assert [halver.attempt(part, compute) for part in halver.parts(of(7))] == [3, 2, 2]


def test_a_single_row_is_not_cut_and_other_errors_stay(halver: Halver[Inputs]) -> None:
    def fail(_: Inputs) -> None:
        raise MemoryError

    with pytest.raises(DoesNotFitError):
        halver.attempt(of(1), fail)
    assert halver.limit is None

    def misuse(_: Inputs) -> None:
        raise RuntimeError("shapes do not fit each other")

    with pytest.raises(RuntimeError, match="shapes"):
        halver.attempt(of(2), misuse)
