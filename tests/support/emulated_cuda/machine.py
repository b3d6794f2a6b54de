"""Emulated devices: their memory, random numbers, and copies that are made late.

A copy that a program queues is made when the program waits for it, and no earlier: until then its
target holds noise. A copy from page-locked memory checks, when it is waited for, that nobody has
written to that memory since it was queued.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Before torch is imported, which asks at once which devices there are.
GUARD = ctypes.CDLL(os.environ["EMULATED_CUDA_LIBRARY"])
GUARD.emulated_page_locked_bytes.restype = ctypes.c_size_t

import torch  # noqa: E402

COUNT = 2  # as in guard.cpp
TOTAL_BYTES = 4 << 30  # of each device
OPERATIONS = "EMULATED_CUDA_OPERATIONS"  # variable: a file for the names of operations
ROUNDED_TO = 512  # bytes, as torch's allocator does


class EmulationError(RuntimeError):
    """A program did what a CUDA device does not allow, or would answer with wrong numbers."""


class Device:
    """One device.

    Args:
        index: Its number.

    Attributes:
        place: As torch names it.
        generator: Its random numbers.
        total: Bytes of memory.
        allocated: Bytes of tensors.
        peak: Most bytes since that was last set.
        waits: How often the program waited for it, by operation.
        operations: Number of calls by operation.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.place = torch.device("cuda", index)
        self.generator = torch.Generator()
        self.total = TOTAL_BYTES
        self.allocated = self.peak = 0
        self._entered = False
        self.waits, self.operations = Counter[str](), Counter[str]()
        self._queue: list[tuple[int, Callable[[], None]]] = []
        self._last = 0
        self._lock = threading.RLock()

    @property
    def entered(self) -> bool:
        """Whether this process has a context on it."""
        return self._entered or bool(GUARD.emulated_locked_on() >> self.index & 1)

    def enter(self) -> None:
        """Make a context."""
        self._entered = True

    def allocate(self, size: int) -> Block:
        """Memory for a tensor.

        Raises:
            OutOfMemoryError: If there is too little.
        """
        size = -(-size // ROUNDED_TO) * ROUNDED_TO
        with self._lock:
            self.enter()
            if self.allocated + size > self.total:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {size} bytes. Emulated device "
                    f"{self.index} has {self.total} bytes, {self.allocated} of them in use."
                )
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        return Block(self, size)

    def free(self, size: int) -> None:
        """Take memory back."""
        self.allocated -= size  # without the lock: a finaliser may run within `allocate`

    def queue(self, work: Callable[[], None]) -> None:
        """Queue a copy."""
        with self._lock:
            self._last += 1
            self._queue.append((self._last, work))

    def count(self, operation: str) -> None:
        """Count a call; the first one of its name is added to the file of `OPERATIONS`."""
        self.operations[operation] += 1
        if self.operations[operation] == 1 and (path := os.environ.get(OPERATIONS)):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(operation + "\n")

    def mark(self) -> int:
        """Number of the last copy that was queued."""
        return self._last

    def wait(self, why: str, until: int | None = None) -> None:
        """Make copies that were queued, up to a mark; None: all."""
        with self._lock:
            self.enter()
            self.waits[why] += 1
            last = self._last if until is None else until
            ready = [work for number, work in self._queue if number <= last]
            self._queue = [each for each in self._queue if each[0] > last]
            for work in ready:
                work()

    @contextmanager
    def random(self) -> Iterator[None]:
        """Draw from this device's random numbers within the context."""
        with _random_lock:
            before = torch.get_rng_state()
            torch.set_rng_state(self.generator.get_state())
            try:
                yield
                self.generator.set_state(torch.get_rng_state())
            finally:
                torch.set_rng_state(before)


class Block:
    """Memory of a tensor and its views; free once none is left."""

    def __init__(self, device: Device, size: int) -> None:
        weakref.finalize(self, device.free, size)


_random_lock = threading.RLock()
DEVICES = tuple(Device(index) for index in range(COUNT))


def device(place: torch.device | str | int | None = None) -> Device:
    """The device of a name, a number, or None: the current one of this thread."""
    if isinstance(place, int):
        return DEVICES[place]
    named = torch.device("cuda" if place is None else place)
    if named.type != "cuda":
        raise EmulationError(f"expected a CUDA device, given {place}")
    return DEVICES[int(GUARD.emulated_current()) if named.index is None else named.index]


def exchanged(index: int, *, enters: bool = True) -> int:
    """Make a device the current one, and return which one was; a negative number changes none.

    Args:
        index: Its number.
        enters: Whether that makes a context on it.
    """
    before = int(GUARD.emulated_current())
    if index >= 0 and index != before:
        if enters:
            DEVICES[index].enter()
        GUARD.emulated_set(index)
    return before
