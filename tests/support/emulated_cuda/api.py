"""`torch.cuda` and `torch.accelerator` for emulated devices."""

from __future__ import annotations

import importlib
import types
from typing import Any

from tests.support.emulated_cuda import machine, tensor
from tests.support.emulated_cuda.machine import DEVICES, GUARD, EmulationError

import torch  # isort: skip  after `machine`

_libraries: list[Any] = []  # what they register lasts as long as they do


class Stream:
    """The only stream of a device.

    Attributes:
        device: The device.
    """

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = machine.device(device).place

    def synchronize(self) -> None:
        """Wait for everything."""
        machine.device(self.device).wait("stream")

    def is_capturing(self) -> bool:
        """No graph is recorded."""
        return False


class Event:
    """Knows the last copy that had been queued when it was recorded."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._device: machine.Device | None = None
        self._mark = 0

    def record(self, stream: Any = None) -> None:
        """Remember where the queue of the stream's device ends; default: of the current one."""
        self._device = machine.device(None if stream is None else stream.device)
        self._device.enter()
        self._mark = self._device.mark()

    def synchronize(self) -> None:
        """Wait for what was queued until then."""
        if self._device is not None:
            self._device.wait("event", self._mark)


def install() -> None:
    """Give this process emulated devices."""
    if torch.version.cuda is not None:
        raise EmulationError("torch is built for CUDA; expected a build for CPUs alone")
    names = _cuda()
    for module, values in ((torch.cuda, names), (torch.accelerator, _accelerator(names))):
        for name, value in values.items():
            setattr(module, name, value)
    c: Any = torch._C
    c._cuda_hasPrimaryContext = lambda index: DEVICES[index].entered
    cuda: Any = torch.cuda
    cuda._initialized = True  # by which checkpointing knows that devices have random numbers
    make_library: Any = torch.library.Library
    library = make_library("aten", "IMPL", "CUDA")
    library.impl("empty.memory_format", tensor.empty)
    library.impl("empty_strided", tensor.empty_strided)
    _libraries.append(library)
    nn: Any = torch.nn
    nn.Module._apply = _in_place(nn.Module._apply)
    functions: Any = torch._VF
    for name in ("gru", "lstm"):  # torch composes them of kernels that only CUDA has
        setattr(functions, name, tensor.recurrent(name, getattr(functions, name)))
    cudnn: Any = torch.backends.cudnn
    cudnn.is_acceptable = lambda _: False  # without its warning that torch was built without
    # Kept before what they hold is replaced: they are what `with torch.device(...)` is for.
    importlib.import_module("torch.utils._device")._device_constructors()
    for name in ("tensor", "as_tensor"):  # which leave out `__torch_dispatch__`
        setattr(torch, name, _by_way_of_the_host(getattr(torch, name)))
    distributed: Any = torch.distributed
    distributed.init_process_group = _by_gloo(distributed.init_process_group)
    optimizers = importlib.import_module("torch.optim.optimizer")
    optimizers._foreach_supported_types.append(tensor.EmulatedTensor)


def _in_place(apply: Any) -> Any:
    """`Module.to`, by which a parameter stays the object that it is, as on a real device."""

    def applied(module: Any, *args: Any, **kwargs: Any) -> Any:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(module, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return applied


def _by_way_of_the_host(make: Any) -> Any:
    def made(data: Any, *args: Any, device: Any = None, **more: Any) -> Any:
        if device is None or torch.device(device).type != "cuda":
            return make(data, *args, device=device, **more)
        if isinstance(data, torch.Tensor):
            return data.to(device, more.get("dtype"))
        wanted = more.pop("requires_grad", False)
        return make(data, *args, **more).to(device).requires_grad_(wanted)

    return made


def _by_gloo(begin: Any) -> Any:
    """`init_process_group`, whose devices exchange numbers by way of the host."""

    def begun(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        begin("gloo" if backend == "nccl" else backend, *args, **kwargs)

    return begun


def _cuda() -> dict[str, Any]:
    def properties(place: Any = None) -> Any:
        total = machine.device(place).total
        return types.SimpleNamespace(
            name="Emulated", total_memory=total, major=9, minor=0, multi_processor_count=1
        )

    def free_and_total(place: Any = None) -> tuple[int, int]:
        own = machine.device(place)
        own.enter()
        return own.total - own.allocated, own.total

    def reset_peak(place: Any = None) -> None:
        own = machine.device(place)
        own.peak = own.allocated

    def seed(value: int) -> None:
        machine.device().generator.manual_seed(value)

    def seed_all(value: int) -> None:
        for each in DEVICES:
            each.generator.manual_seed(value)

    def set_state(state: torch.Tensor, place: Any = "cuda") -> None:
        machine.device(place).generator.set_state(state)

    def nothing(*_: Any, **__: Any) -> None:
        """As the real ones do nothing that can be seen."""

    return {
        "_lazy_init": nothing,
        "empty_cache": nothing,
        "_exchange_device": machine.exchanged,
        "_maybe_exchange_device": lambda index: machine.exchanged(index, enters=False),
        "_is_in_bad_fork": lambda: False,
        "is_available": lambda: True,
        "is_initialized": lambda: any(each.entered for each in DEVICES),
        "device_count": lambda: len(DEVICES),
        "current_device": lambda: int(GUARD.emulated_current()),
        "set_device": lambda place: machine.exchanged(machine.device(place).index) and None,
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream,
        "synchronize": lambda place=None: machine.device(place).wait("synchronize"),
        "mem_get_info": free_and_total,
        "memory_allocated": lambda place=None: machine.device(place).allocated,
        "max_memory_allocated": lambda place=None: machine.device(place).peak,
        "reset_peak_memory_stats": reset_peak,
        "host_memory_stats": lambda: {"allocated_bytes.current": page_locked_bytes()},
        "get_device_name": lambda _=None: "Emulated",
        "get_device_properties": properties,
        "get_device_capability": lambda _=None: (9, 0),
        "is_bf16_supported": lambda *_: True,
        "manual_seed": seed,
        "manual_seed_all": seed_all,
        "get_rng_state": lambda place="cuda": machine.device(place).generator.get_state(),
        "set_rng_state": set_state,
    }


def _accelerator(cuda: dict[str, Any]) -> dict[str, Any]:
    """What `torch.accelerator` calls by other names, and what it has beside."""
    alike = ("is_available", "device_count", "synchronize", "empty_cache", "current_stream")
    memory = ("memory_allocated", "max_memory_allocated")
    return {name: cuda[name] for name in (*alike, *memory)} | {
        "current_accelerator": lambda *_, **__: torch.device("cuda"),
        "current_device_index": cuda["current_device"],
        "set_device_index": cuda["set_device"],
        "empty_host_cache": cuda["empty_cache"],
    }


def page_locked_bytes() -> int:
    """Bytes of page-locked memory that tensors hold."""
    return int(GUARD.emulated_page_locked_bytes())
