"""Memory: how much is available, which errors mean too little of it, and work cut in halves."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch

Work = TypeVar("Work")
Result = TypeVar("Result")
Shape = tuple[int, ...]

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# First words of the reason of utterances that are tried again, as another machine may have room.
DOES_NOT_FIT = "does not fit the memory of"
# In messages of bare `RuntimeError`s, which is how torch raises the errors of libraries: cuBLAS and
# its kin (CUBLAS_STATUS_ALLOC_FAILED, CUFFT_ALLOC_FAILED), cuDNN, a CPU's allocator, and C++.
_TOO_LITTLE = (
    *("out of memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED", "cudaErrorMemoryAllocation"),
    *("DefaultCPUAllocator", "std::bad_alloc", "Cannot allocate memory"),
)
# Said where cuBLAS and cuDNN found no memory for a handle or a workspace, but elsewhere too.
_PERHAPS = (
    *("CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_NOT_INITIALIZED"),
    *("unable to find an engine to execute", "Unable to find a valid cuDNN algorithm"),
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has too little memory."""
    torch = sys.modules.get("torch")  # not imported: readers of a cache do without
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _TOO_LITTLE)


def give_back_freed() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc).

    It keeps freed memory for later, but may put small things into it that stay, so that the next
    large array does not fit there: then memory grows although nothing is held.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # neither macOS nor musl has it
    if trim is not None:
        trim(ctypes.c_size_t(0))


class DoesNotFitError(Exception):
    """Work does not fit the device's memory; its message is what the allocator said first."""


@dataclass
class Halver(Generic[Work]):
    """Cuts work that does not fit a device's memory in halves, and remembers its shapes.

    By `attempt_twice`, work is cut if it fails twice in a row, the second time after unused memory
    was freed, or if it is at least as large in each dimension as work that did. So whether it is
    cut depends on its shape and the device, but not on what the process did before, which may have
    left memory in pieces.

    Attributes:
        rows: Number of rows of a piece of work; a single row is never cut.
        shape: Padded dimensions of a piece, always as many.
        between: The rows of a piece from a first one to before a last one.
        too_large: Smallest shapes that did not fit. Pieces at least as large are cut beforehand.
    """

    rows: Callable[[Work], int]
    shape: Callable[[Work], Shape]
    between: Callable[[Work, int, int], Work]
    too_large: list[Shape] = field(default_factory=list)

    def parts(self, work: Work) -> Iterator[Work]:
        """The work, or its halves, or theirs: the largest that may fit, as far as known."""
        rows, shape = self.rows(work), self.shape(work)
        if rows == 1 or not any(_within(known, shape) for known in self.too_large):
            yield work
            return
        yield from self.parts(self.between(work, 0, rows // 2))
        yield from self.parts(self.between(work, rows // 2, rows))

    def attempt(self, part: Work, compute: Callable[[Work], Result]) -> Result:
        """Compute a part.

        Raises:
            DoesNotFitError: If it does not fit; memory that was not in use has been freed since.
        """
        try:
            return compute(part)
        except (RuntimeError, MemoryError) as error:
            perhaps = self.rows(part) > 1 and any(word in str(error) for word in _PERHAPS)
            if not (perhaps or out_of_memory(error)):
                raise
            reason = str(error).partition(". ")[0]
        # Outside of the handler: the error holds the frames of `compute`, and so its tensors.
        _free_unused()
        raise DoesNotFitError(reason)

    def attempt_twice(self, part: Work, compute: Callable[[Work], Result]) -> Result:
        """Compute a part by a function that leaves nothing to undo.

        Raises:
            DoesNotFitError: If it has failed twice. If it is more than a single row, `parts` will
                cut it.
        """
        with contextlib.suppress(DoesNotFitError):
            return self.attempt(part, compute)
        try:
            return self.attempt(part, compute)
        except DoesNotFitError:
            self.cut(part)
            raise

    def cut(self, part: Work) -> None:
        """From now on cut what is as large as a part, unless it is a single row."""
        if self.rows(part) > 1:
            self.too_large = smallest([*self.too_large, self.shape(part)])

    def forget(self) -> None:
        """Forget what did not fit."""
        self.too_large = []


def smallest(shapes: Iterable[Shape]) -> list[Shape]:
    """The shapes that no other one lies within.

    >>> smallest([(8, 500), (4, 500), (16, 90), (4, 500)])
    [(4, 500), (16, 90)]
    """
    every = sorted(set(shapes))
    return [a for a in every if not any(b != a and _within(b, a) for b in every)]


def _within(small: Shape, large: Shape) -> bool:
    """Whether a shape is at most as large as another in each dimension."""
    return len(small) == len(large) and all(a <= b for a, b in zip(small, large, strict=True))


def _free_unused() -> None:
    """Return memory that no tensor uses to the device, whose pieces may be too small by now."""
    import torch

    gc.collect()  # a cycle may hold tensors
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def too_large(
    device: torch.device | str, what: str = "", remedy: str = "cut it into shorter ones"
) -> str:
    """Reason for rejecting an utterance that does not fit by itself.

    >>> too_large("cuda:0", "3600 s")
    'does not fit the memory of cuda:0 by itself (3600 s): cut it into shorter ones, or use a \
larger device'
    """
    size = f" ({what})" if what else ""
    return f"{DOES_NOT_FIT} {device} by itself{size}: {remedy}, or use a larger device"


def available_bytes(*, proc: Path = PROC, control_groups: Path = CONTROL_GROUPS) -> int:
    """Bytes that could be used without swapping: free ones and those of the page cache.

    A job's limit (control groups, version 2: containers, Slurm) counts as well. Where the system
    reports neither, it is all of the machine's memory.
    """
    bounds = [*_limits(proc, control_groups), *_available(proc)]
    if bounds:
        return min(bounds)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _available(proc: Path) -> list[int]:
    lines = _lines(proc / "meminfo")
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]


def _limits(proc: Path, control_groups: Path) -> list[int]:
    """Limits of this process's control group and of those above it."""
    own = [line[3:] for line in _lines(proc / "self" / "cgroup") if line.startswith("0::")]
    folders = [control_groups]
    for part in Path(own[0]).parts[1:] if own else ():
        folders.append(folders[-1] / part)
    texts = [line for folder in folders for line in _lines(folder / "memory.max")]
    return [int(text) for text in texts if text.isdigit()]  # "max" is none


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []  # another system, or a group that is not shown inside a container
