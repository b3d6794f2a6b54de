"""How much memory this process may count on, and errors of having too little."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROC = Path("/proc")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# How a rejected utterance's reason begins that another machine, or another day, may overcome.
DOES_NOT_FIT = "does not fit the memory of"
# What torch raises as a bare `RuntimeError`: its allocator on a CPU, and libraries on a GPU.
_TOO_LITTLE = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has too little memory."""
    import torch  # only here: readers of a cache ask this module for the available memory

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _TOO_LITTLE)


def too_large(device: torch.device | str) -> str:
    """The reason of an utterance that alone does not fit."""
    return f"{DOES_NOT_FIT} {device} by itself: cut it into shorter ones, or use a larger device"


def available_bytes(*, proc: Path = PROC, control_groups: Path = CONTROL_GROUPS) -> int:
    """Bytes that could be used without swapping: free ones and those of the page cache.

    A job's limit (control groups, version 2: containers, Slurm) counts as well. Where the system
    tells none of it, all its memory is taken to be there.
    """
    bounds = [*_limits(proc, control_groups), *_available(proc)]
    if bounds:
        return min(bounds)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _available(proc: Path) -> list[int]:
    lines = _lines(proc / "meminfo")
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]


def _limits(proc: Path, control_groups: Path) -> list[int]:
    """Limits of the group that this process is in, and of those above it."""
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
