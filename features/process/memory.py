"""Memory: how much is available, which errors mean too little of it, and work cut in halves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch

Work = TypeVar("Work")
Result = TypeVar("Result")

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# First words of the reason of utterances that are tried again, as another machine may have room.
DOES_NOT_FIT = "does not fit the memory of"
# What torch raises as a bare `RuntimeError`: its allocator on a CPU, and libraries on a GPU.
_TOO_LITTLE = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has too little memory."""
    import torch  # only here: readers of a cache ask this module for the available memory

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _TOO_LITTLE)


class DoesNotFitError(Exception):
    """Work does not fit the device's memory; its message is what the allocator said first."""


@dataclass
class Halver(Generic[Work]):
    """Cuts work that does not fit a device's memory in halves, and remembers which size that was.

    Attributes:
        rows: Number of rows of a piece of work; a single row is never cut.
        size: Padded numbers of a piece: about what its memory grows with.
        between: The rows of a piece from a first one to before a last one.
        limit: Size of the smallest piece that did not fit; None: all did. Pieces of that size or
            larger are cut beforehand.
    """

    rows: Callable[[Work], int]
    size: Callable[[Work], int]
    between: Callable[[Work, int, int], Work]
    limit: int | None = None

    def parts(self, work: Work) -> Iterator[Work]:
        """The work, or its halves, or theirs: the largest that may fit, as far as known."""
        rows = self.rows(work)
        if self.limit is None or self.size(work) < self.limit or rows == 1:
            yield work
            return
        yield from self.parts(self.between(work, 0, rows // 2))
        yield from self.parts(self.between(work, rows // 2, rows))

    def attempt(self, part: Work, compute: Callable[[Work], Result]) -> Result:
        """Compute a part.

        Raises:
            DoesNotFitError: If it does not fit; unless it is a single row, `parts` will cut it.
        """
        import torch

        try:
            return compute(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = str(error).partition(". ")[0]
        # Outside of the handler: the error holds the frames of `compute`, and so its tensors.
        if self.rows(part) > 1:
            size = self.size(part)
            self.limit = size if self.limit is None else min(self.limit, size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise DoesNotFitError(reason)


def too_large(device: torch.device | str) -> str:
    """Reason for rejecting an utterance that does not fit by itself."""
    return f"{DOES_NOT_FIT} {device} by itself: cut it into shorter ones, or use a larger device"


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
