"""That emulated devices refuse what a real one would; `test_emulated_cuda.py` runs this file.

Each case is a fault that a program could have, which shows only on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.process.devices import PageLocked, entered, fetched, full_float32, moved
from tests.support.emulated_cuda import machine
from tests.support.emulated_cuda.machine import DEVICES, EmulationError

pytestmark = pytest.mark.gpu
FIRST, SECOND = "cuda:0", "cuda:1"
EVENT: Any = torch.cuda.Event


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "host": lambda x: x + torch.ones(3),
    "other device": lambda x: x + torch.ones(3, device=SECOND),
    "one of many": lambda x: torch.cat([x, torch.ones(3)]),
    "weights": lambda x: nn.Linear(3, 2)(x),
    "indexed": lambda x: torch.ones(3)[x.long()],
    "put": lambda x: x.index_put((torch.tensor([0]),), torch.ones(1)),
    "mask": lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, 0.0),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_tensors_of_two_places_are_refused(fault: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(EmulationError, match="on the same device, but found"):
        fault(torch.ones(3, device=FIRST))


def test_numbers_of_the_host_go_with_any_device() -> None:
    x = torch.ones(3, device=SECOND)
    assert (x + torch.tensor(2.0)).tolist() == [3.0] * 3
    assert x[torch.tensor([0, 2])].tolist() == [1.0] * 2
    with pytest.raises(TypeError, match="can't convert cuda:1 device type tensor to numpy"):
        x.numpy()


def test_memory_that_nobody_has_written_is_noise() -> None:
    assert torch.empty(2, device=FIRST).isnan().all()
    assert torch.empty_like(torch.ones(2, device=FIRST)).isnan().all()


def test_copies_to_the_host_are_late() -> None:
    x = torch.ones(3, device=SECOND)
    for wait in (EVENT().synchronize, lambda: torch.cuda.synchronize(FIRST)):
        copy = x.to("cpu", non_blocking=True)
        wait()  # for nothing, or for another device
        assert copy.isnan().all()
    torch.cuda.synchronize(SECOND)
    assert copy.tolist() == [1.0] * 3
    copy = x.to("cpu", non_blocking=True)
    on_first, on_second = EVENT(), EVENT()
    on_first.record()
    on_second.record(torch.cuda.current_stream(torch.device(SECOND)))
    on_first.synchronize()
    assert copy.isnan().all()
    on_second.synchronize()
    assert copy.tolist() == [1.0] * 3


def test_memory_that_is_copied_from_must_stay_as_it_is() -> None:
    locked = PageLocked().copy(torch.ones(3))
    assert locked.is_pinned()
    moved(locked, FIRST)
    torch.cuda.synchronize(FIRST)
    moved(locked, FIRST)
    locked.zero_()
    with pytest.raises(EmulationError, match="written to during a copy"):
        torch.cuda.synchronize(FIRST)


def test_results_wait_for_the_device_that_has_them() -> None:
    place = torch.device(SECOND)
    with entered(place):
        copies, arrived = fetched([torch.ones(3, device=place)], place)
    assert copies[0].isnan().all()
    assert arrived is not None
    arrived.synchronize()
    assert copies[0].tolist() == [1.0] * 3


def test_memory_is_limited_and_counted() -> None:
    device = DEVICES[1]
    before = device.allocated
    large = torch.empty(device.total // 2, dtype=torch.uint8, device=SECOND)
    view = large[1:]
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.empty(device.total // 2 + 1024, dtype=torch.uint8, device=SECOND)
    del large
    assert device.allocated > before
    del view
    assert device.allocated == before


def test_float32_products_are_rounded_as_by_tf32() -> None:
    x = torch.full((1, 1), 1 + 2.0**-12, device=FIRST)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert (x @ x).item() == 1.0
        with full_float32():
            assert (x @ x).item() > 1.0
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_each_device_has_its_random_numbers() -> None:
    torch.manual_seed(3)
    first, second, host = (torch.rand(4, device=place) for place in (FIRST, SECOND, "cpu"))
    assert first.tolist() == second.tolist() == host.tolist()
    state = torch.cuda.get_rng_state(FIRST)
    again = torch.rand(4, device=FIRST)
    assert torch.rand(4, device=SECOND).tolist() == again.tolist()
    torch.cuda.set_rng_state(state, FIRST)
    assert torch.rand(4, device=FIRST).tolist() == again.tolist()


def test_modules_keep_their_parameters_and_autocast_its_rules() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), torch.randn(5, 4)
    module(x).pow(3).sum().backward()
    expected = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    before = list(module.parameters())
    module.to(SECOND)
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))
    module(x.to(SECOND)).pow(3).sum().backward()
    for parameter, wanted in zip(module.parameters(), expected, strict=True):
        assert wanted is not None
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad.cpu(), wanted, atol=1e-6)
    with torch.autocast("cuda", torch.bfloat16):
        y = module[0](x.to(SECOND))
        assert y.dtype == torch.bfloat16
        assert module[1](y).dtype == torch.float32
    assert machine.device(SECOND).operations["aten.addmm.default"] > 0
