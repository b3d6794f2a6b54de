"""Selects a thread's device, and copies tensors to and from it without reading them too early.

Streams, events and page-locked memory belong to the thread's current device unless one is named: a
process that computed on the second GPU without selecting it would wait for events of the first,
which say nothing about the second one's copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


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


def moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Return `tensor.to(device, dtype)`, ready to be read."""
    # Without waiting for the copy only on CUDA devices, whose later work waits for it, and whose
    # allocator keeps page-locked memory until then. A copy to the host would be read too early;
    # other devices (MPS, XPU) do not keep the host's memory alive.
    queued = torch.device(device).type == "cuda"
    return tensor.to(device, dtype, non_blocking=queued)


def fetched(
    tensors: Sequence[Tensor], device: torch.device
) -> tuple[list[Tensor], torch.Event | None]:
    """Copies in the host's memory, and the event to wait for before reading them; None: ready.

    Copies from a CUDA device are queued behind its other work, into page-locked memory.
    """
    if device.type != "cuda":
        return [moved(tensor, "cpu") for tensor in tensors], None
    module: Any = torch.get_device_module(device)
    copies = [_page_locked(tensor).copy_(tensor, non_blocking=True) for tensor in tensors]
    arrived: torch.Event = module.Event()
    arrived.record(module.current_stream(device))
    return copies, arrived


def _page_locked(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True)
