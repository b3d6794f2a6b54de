"""Entering a device, and copies to and from it that nobody reads before they have arrived.

The current device belongs to a thread, and streams, events and page-locked memory made without
naming one are the current device's: a process that computes on the second GPU without entering it
would wait for the first one's events, which say nothing of the second's copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor


class Arrival(Protocol):
    """What a device signals when its copies are there."""

    def synchronize(self) -> None:
        """Wait for it."""
        ...


def entered(device: torch.device | str) -> AbstractContextManager[Any]:
    """Make a device the current one of this thread while the context lasts."""
    place = torch.device(device)
    if place.type == "cpu" or place.index is None:  # none, or the current one
        return contextlib.nullcontext()
    enter: Any = getattr(torch.get_device_module(place), "device", contextlib.nullcontext)
    context: AbstractContextManager[Any] = enter(place)  # MPS, of which there is one, has none
    return context


def device_threads(count: int, name: str = "") -> ThreadPoolExecutor:
    """Threads on the device that the caller has entered; by itself a thread is on the first."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return ThreadPoolExecutor(count, name)
    own = (torch.cuda.current_device(),)
    return ThreadPoolExecutor(count, name, torch.cuda.set_device, own)


def moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """`tensor.to(device, dtype)`, which may be read at once.

    It returns before the copy is done only towards a CUDA device, whose later work waits for it by
    itself and whose allocator keeps page-locked memory until then. A copy to the host has nobody
    that waits; and other kinds (MPS, XPU) do not keep the host's memory alive.
    """
    queued = torch.device(device).type == "cuda"
    return tensor.to(device, dtype, non_blocking=queued)


def fetched(tensors: Sequence[Tensor], device: torch.device) -> tuple[list[Tensor], Arrival | None]:
    """Copies in the computer's memory, and what to wait for before they are read; None: nothing.

    From a CUDA device they are on their way, into page-locked memory, behind all that the device
    was asked for so far.

    Args:
        tensors: On the device.
        device: Which it is.
    """
    if device.type != "cuda":
        return [moved(tensor, "cpu") for tensor in tensors], None
    module: Any = torch.get_device_module(device)
    copies = [_page_locked(tensor).copy_(tensor, non_blocking=True) for tensor in tensors]
    arrived: Arrival = module.Event()
    arrived.record(module.current_stream(device))  # type: ignore[attr-defined]
    return copies, arrived


def _page_locked(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True)
