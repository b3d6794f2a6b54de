"""Selects a thread's device, and copies tensors to and from it without reading them too early.

Streams, events and page-locked memory belong to the thread's current device unless one is named: a
process that computed on the second GPU without selecting it would wait for events of the first,
which say nothing about the second one's copies.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from features.process.memory import out_of_memory

GENERATORS = ("rng.cpu", "rng.cuda")  # names of torch's generators in steps and checkpoints
PAGE_LOCKED_BYTES = 512 << 20  # most that a process locks for copies to devices, and for those back


def entered(device: torch.device | str) -> AbstractContextManager[Any]:
    """Context in which a device is the current one of this thread."""
    place = torch.device(device)
    if place.type == "cpu" or place.index is None:  # without a current device, or the current one
        return contextlib.nullcontext()
    enter: Any = getattr(torch.get_device_module(place), "device", contextlib.nullcontext)
    context: AbstractContextManager[Any] = enter(place)  # MPS has a single device
    return context


def device_threads(count: int, name: str = "") -> ThreadPoolExecutor:
    """Pool of threads whose current device is the caller's; new threads begin with the first."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return ThreadPoolExecutor(count, name)
    own = (torch.cuda.current_device(),)
    return ThreadPoolExecutor(count, name, torch.cuda.set_device, own)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Switch TF32 off within this context: it rounds the inputs of float32 products to 10 bits.

    By default torch uses it for convolutions and recurrent layers on a GPU, and containers of
    NVIDIA for matrix products as well. A batch would no longer equal its clips alone to 1e-5.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@contextlib.contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Switch cuDNN's attention off within this context, which torch prefers on recent GPUs.

    It makes a plan for each new shape, so for nearly each batch of clips, and had gradients that
    are no numbers beside masks (H100, half precision, from torch 2.11: pytorch#196678).
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Compute without TF32 and without cuDNN's attention within this context."""
    with full_float32(), without_cudnn_attention():
        yield


def moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Return `tensor.to(device, dtype)`, ready to be read."""
    # Without waiting for the copy only on CUDA devices, whose later work waits for it, and whose
    # allocator keeps page-locked memory until then. A copy to the host would be read too early;
    # other devices (MPS, XPU) do not keep the host's memory alive.
    queued = torch.device(device).type == "cuda"
    return tensor.to(device, dtype, non_blocking=queued)


class PageLocked:
    """Lends page-locked memory, from and to which a CUDA device copies while it computes.

    No other program can use such memory, so there is a limit. torch rounds each block up to a power
    of two, and keeps it for later ones of the same size; both count.

    Args:
        limit: Most bytes that are held at one time.
    """

    def __init__(self, limit: int = PAGE_LOCKED_BYTES) -> None:
        self.limit = limit
        self._used, self._held = Counter[int](), Counter[int]()  # blocks by size
        self._returned: deque[int] = deque()
        self._lock = threading.Lock()

    def like(self, tensor: Tensor) -> Tensor | None:
        """An uninitialised page-locked tensor on the host; None where there is no room for it.

        It is lent until nothing refers to it: a view of it that lives longer is not counted.
        """
        if not tensor.nbytes:
            return None
        size = 1 << (tensor.nbytes - 1).bit_length()
        with self._lock:
            if not self._take(size):
                return None
        try:
            found = _page_locked(tensor)
        except RuntimeError as error:
            self._returned.append(size)
            if not out_of_memory(error):
                raise
            return None
        weakref.finalize(found, self._returned.append, size)
        return found

    def copy(self, tensor: Tensor) -> Tensor:
        """A page-locked copy; the tensor itself where there is no room for one."""
        locked = self.like(tensor)
        return tensor if locked is None else locked.copy_(tensor)

    def _take(self, size: int) -> bool:
        # Returned here, not where a tensor dies: that may be in the midst of these lines.
        while self._returned:
            self._used[self._returned.popleft()] -= 1
        if self._used[size] == self._held[size]:  # no block of this size to use again
            if self._total() + size > self.limit and self._held != self._used:
                _drop_unused()
                self._held = self._used.copy()
            if self._total() + size > self.limit:
                return False
            self._held[size] += 1
        self._used[size] += 1
        return True

    def _total(self) -> int:
        return sum(size * count for size, count in self._held.items())


_FROM_HOST, _TO_HOST = PageLocked(), PageLocked()


def page_locked(tensor: Tensor) -> Tensor:
    """A copy in page-locked memory, for `moved`; the tensor itself if that is used up."""
    return _FROM_HOST.copy(tensor)


def fetched(
    tensors: Sequence[Tensor], device: torch.device
) -> tuple[list[Tensor], torch.Event | None]:
    """Copies in the host's memory, and the event to wait for before reading them; None: ready.

    Copies from a CUDA device are queued behind its other work, into page-locked memory. Where that
    is used up, they are in other memory, and this waits for the device.
    """
    if device.type != "cuda":
        return [moved(tensor, "cpu") for tensor in tensors], None
    module: Any = torch.get_device_module(device)
    copies = []
    for tensor in tensors:
        locked = _TO_HOST.like(tensor)
        if locked is None:
            copies.append(moved(tensor, "cpu"))
        else:
            copies.append(locked.copy_(tensor, non_blocking=True))
    arrived: torch.Event = module.Event()
    arrived.record(module.current_stream(device))
    return copies, arrived


def _page_locked(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True)


def _drop_unused() -> None:
    """Return the page-locked memory that torch keeps for later to the system."""
    drop: Any = getattr(torch._C, "_host_emptyCache", None)  # of builds for CUDA; 2.13 has more
    (drop or torch.accelerator.empty_host_cache)()


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators: `rng.cpu`, and on a CUDA device `rng.cuda`."""
    states = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generators(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Set the generators to what `generator_states` returned; other names are ignored."""
    torch.set_rng_state(states["rng.cpu"])
    if "rng.cuda" in states:
        torch.cuda.set_rng_state(states["rng.cuda"], device)
