"""Tensors of emulated CUDA devices: numbers in the host's memory that only a device may touch.

torch sees a tensor on `cuda:N`: it selects autocast's and autograd's rules for CUDA by itself. Each
operation arrives at `__torch_dispatch__`, is held against what a device allows (all tensors on
one device), and is computed on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only

from tests.support.emulated_cuda import machine
from tests.support.emulated_cuda.machine import Device, EmulationError

aten = torch.ops.aten
NOISE_BYTES = 64 << 20
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
PACKING = {aten._pack_padded_sequence.default, aten._pad_packed_sequence.default}
# Operations that take arguments of the host beside a device's.
MIXED = {
    aten.copy_.default,
    aten._to_copy.default,
    aten._pack_padded_sequence_backward.default,
    *PACKING,
}
EMPTY = {aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default}
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}
CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}
# Operations whose result is a number, or has a size that the numbers decide: the host waits.
WAITS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}


class EmulatedTensor(torch.Tensor):
    """A tensor on an emulated device.

    Attributes:
        host: Its numbers.
        block: Its memory on the device.
    """

    host: torch.Tensor
    block: machine.Block

    @staticmethod
    def __new__(
        cls: Any, host: torch.Tensor, device: Device, block: machine.Block | None = None
    ) -> EmulatedTensor:
        made: EmulatedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=device.place,
        )
        made.host = host
        made.block = block or device.allocate(host.untyped_storage().nbytes())
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        special = SPECIAL.get(func)
        if special is not None:
            return special(*args, **kwargs)
        if torch.is_inference_mode_enabled():  # where composed operations arrive whole
            parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        return computed(func, args, kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"EmulatedTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        assert isinstance(value, EmulatedTensor)
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.host, self.block = value.host, value.block

    def data_ptr(self) -> int:
        """Address of its numbers, by which copies of weights are told apart."""
        return self.host.data_ptr()

    def untyped_storage(self) -> Any:
        """That of its numbers."""
        return self.host.untyped_storage()

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_indices(index), value)

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:  # type: ignore[override]
        """As of any tensor; torch makes it without `__torch_dispatch__`."""
        made: torch.Tensor = torch.tensor(data, **{"dtype": self.dtype, **options})
        return made.to(self.device)

    def tolist(self) -> Any:
        """As of any tensor; torch refuses it for subclasses."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As of a CUDA tensor, which has none."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def is_pinned(self, *_: Any) -> bool:
        return False


def computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of an operation, on its device."""
    given, _ = tree_flatten((args, kwargs))
    tensors = [each for each in given if isinstance(each, torch.Tensor)]
    own = device_of(func, tensors, args)
    target: Device | None = own
    if kwargs.get("device") is not None:
        target = _device_or_host(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("cpu")}
    name = str(func)
    own.count(name)
    if func in WAITS or (func is aten.index.Tensor and has_masks(args[1])):
        own.wait(name)
    hosts = {id(each.host): each for each in tensors if isinstance(each, EmulatedTensor)}
    owners = {each.host.untyped_storage().data_ptr(): each for each in hosts.values()}
    number = _rounded if rounds(func) else _host
    plain_args, plain_kwargs = tree_map_only(EmulatedTensor, number, (args, kwargs))
    if torch.Tag.nondeterministic_seeded in func.tags:
        with own.random():
            found = func(*plain_args, **plain_kwargs)
    else:
        found = func(*plain_args, **plain_kwargs)
    if target is None:
        return found
    if func in EMPTY:
        noise(found)

    def wrapped(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in hosts:
            return hosts[id(tensor)]
        owner = owners.get(tensor.untyped_storage().data_ptr())
        if owner is None:
            return EmulatedTensor(tensor, target)
        inference = owner.is_inference() and torch.is_inference_mode_enabled()
        with torch.inference_mode(inference):  # a view of a tensor is of its kind
            return EmulatedTensor(tensor, target, owner.block)

    if func in PACKING:  # sizes of packed batches stay on the host
        return wrapped(found[0]), found[1]
    return tree_map_only(torch.Tensor, wrapped, found)


def _device_or_host(place: Any) -> Device | None:
    return machine.device(place) if torch.device(place).type == "cuda" else None


def rounds(func: Any) -> bool:
    """Whether an operation takes float32 numbers of 10 bits, as TF32 has them."""
    if func in PRODUCTS:
        return bool(torch.backends.cuda.matmul.allow_tf32)
    return func in CONVOLUTIONS and bool(torch.backends.cudnn.allow_tf32)


def _host(tensor: EmulatedTensor) -> torch.Tensor:
    return tensor.host


def _rounded(tensor: EmulatedTensor) -> torch.Tensor:
    if tensor.dtype != torch.float32:
        return tensor.host
    bits = tensor.host.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).view(tensor.shape)


def device_of(func: Any, tensors: Sequence[torch.Tensor], args: Sequence[Any] = ()) -> Device:
    """The device on which an operation is computed.

    Args:
        func: The operation.
        tensors: Its arguments that are tensors.
        args: Its arguments by position.

    Raises:
        EmulationError: If its arguments are on several.
    """
    if func in INDEXING:  # indices may be the host's, but what is indexed or put there may not
        tensors = [args[0], *args[2:3]]
    places = {each.device for each in tensors if isinstance(each, EmulatedTensor)}
    others = [each for each in tensors if not isinstance(each, EmulatedTensor) and each.dim()]
    if len(places) != 1 or (others and func not in MIXED):
        found = ", ".join(sorted({str(each.device) for each in tensors}))
        raise EmulationError(
            f"Expected all tensors to be on the same device, but found {found} in {func} of "
            f"{[tuple(each.shape) for each in tensors]}"
        )
    return machine.device(next(iter(places)))


def _indices(given: Any) -> Any:
    """Indices as tensors: torch makes them of lists without `__torch_dispatch__`."""
    if isinstance(given, list):
        return torch.tensor(given)
    return tuple(map(_indices, given)) if isinstance(given, tuple) else given


def has_masks(indices: Sequence[torch.Tensor | None]) -> bool:
    """Whether some are boolean, so that the size of a result depends on them."""
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)


def copied(target: Any, source: Any, non_blocking: bool = False) -> Any:
    """`target.copy_(source)`."""
    if not isinstance(target, EmulatedTensor):
        _fetched(target, source, queued=non_blocking)
    elif not isinstance(source, EmulatedTensor):
        _sent(target, source, queued=non_blocking)
    else:
        machine.device(target.device).count("aten.copy_.default")
        target.host.copy_(source.host)
    return target


def _sent(target: EmulatedTensor, source: torch.Tensor, *, queued: bool) -> None:
    device = machine.device(target.device)
    target.host.copy_(source)
    if queued and source.is_pinned():
        sent = source.clone()

        def check() -> None:
            if not torch.equal(source.nan_to_num(), sent.nan_to_num()):
                raise EmulationError("page-locked memory was written to during a copy from it")

        device.queue(check)
    elif source.dim() and not queued:
        device.wait("copy to the device")


def _fetched(target: torch.Tensor, source: EmulatedTensor, *, queued: bool) -> None:
    device = machine.device(source.device)
    if not queued:
        device.wait("copy to the host")
        target.copy_(source.host)
        return
    numbers = source.host.clone()
    target.copy_(noise(torch.empty_like(target)))

    def make() -> None:
        with torch.inference_mode(target.is_inference()):
            target.copy_(numbers)

    device.queue(make)


def converted(tensor: torch.Tensor, **options: Any) -> Any:
    """`tensor.to(...)`, which is a copy."""
    place = torch.device(options.get("device") or tensor.device)
    if place.type == "cuda":
        place = machine.device(place).place
    if tensor.device == place:  # another dtype
        same = {**options, "device": place, "non_blocking": False}
        return computed(aten._to_copy.default, (tensor,), same)
    kept = {key: options[key] for key in ("dtype", "memory_format") if key in options}
    made = torch.empty_like(tensor, device=place, **kept)
    return made.copy_(tensor, non_blocking=options.get("non_blocking", False))


class _OnHost(torch.autograd.Function):
    """The numbers of a device's tensor as a tensor of the host, without a copy."""

    @staticmethod
    def forward(ctx: Any, tensor: EmulatedTensor) -> torch.Tensor:
        ctx.device = machine.device(tensor.device)
        return tensor.host.view_as(tensor.host)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return EmulatedTensor(gradient, ctx.device)


class _OnDevice(torch.autograd.Function):
    """The reverse."""

    @staticmethod
    def forward(_: Any, tensor: torch.Tensor, device: Device) -> Any:
        return EmulatedTensor(tensor.detach(), device)

    @staticmethod
    def backward(_: Any, gradient: EmulatedTensor) -> Any:
        return gradient.host, None


def _on_host(tensor: torch.Tensor) -> Any:
    if torch.is_autocast_enabled("cuda") and tensor.is_floating_point():
        tensor = tensor.to(torch.get_autocast_dtype("cuda"))
    return _to_host(tensor)


_to_host: Any = _OnHost.apply
_to_device: Any = _OnDevice.apply


def recurrent(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrent layer (`torch._VF.gru`) that also takes a device's tensors."""

    def layer(*args: Any) -> Any:
        given, _ = tree_flatten(args)
        found = [each for each in given if isinstance(each, EmulatedTensor)]
        if not found:
            return function(*args)
        numbers = [
            each for each in given if isinstance(each, torch.Tensor) and each.is_floating_point()
        ]
        device = device_of(name, numbers)  # sizes of packed batches are the host's
        device.count(name)
        hosts = tree_map_only(EmulatedTensor, _on_host, args)
        return tree_map_only(torch.Tensor, lambda t: _to_device(t, device), function(*hosts))

    return layer


SPECIAL: dict[Any, Callable[..., Any]] = {
    aten.copy_.default: copied,
    aten._to_copy.default: converted,
    # Asked by `Module.to`, which would put a device's numbers into a tensor of the host.
    aten._has_compatible_shallow_copy_type.default: lambda *_: False,
}


def empty(
    size: Sequence[int],
    dtype: torch.dtype | None = None,
    *_: Any,
    device: Any = None,
    memory_format: Any = None,
    **__: Any,
) -> EmulatedTensor:
    """`torch.empty` for a device."""
    host = torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format)
    return EmulatedTensor(noise(host), machine.device(device))


def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype | None = None,
    *_: Any,
    device: Any = None,
    **__: Any,
) -> EmulatedTensor:
    """`torch.empty_strided` for a device."""
    host = torch.empty_strided(size, stride, dtype=dtype)
    return EmulatedTensor(noise(host), machine.device(device))


def noise(tensor: torch.Tensor) -> torch.Tensor:
    """Fill a tensor with what nobody would compute: NaN, or -1; large ones stay as they are."""
    if tensor.nbytes > NOISE_BYTES:
        return tensor
    storage = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    storage.fill_(0xFF)
    return tensor
