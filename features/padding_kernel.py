"""The compiled loops that fill large batches (features/_padding.c), where they were built.

A batch that exceeds the processor's caches takes half the time with them; values are the same to
the bit. Without a compiler at the installation, on another processor than x86-64, or with
`HERONRY_NO_KERNEL=1` in the environment, there is no kernel, and torch and numpy fill all batches.

Legend: B batch, T time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VERSION = 1  # of the functions; a library that an older installation left behind has another
SWITCH = "HERONRY_NO_KERNEL"


class PaddingKernel:
    """Functions of the library.

    ctypes lets other threads of Python run meanwhile.

    Args:
        library: What `find` loaded.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        address, size = ctypes.c_void_p, ctypes.c_size_t
        self._functions = {
            (torch.float16, torch.float32): library.heronry_padding_widen,
            (torch.float16, torch.float16): library.heronry_padding_copy,
            (torch.float32, torch.float32): library.heronry_padding_copy,
        }
        for function in self._functions.values():
            function.argtypes = [size, address, address, address, size]
            function.restype = None

    def fits(self, rows: Sequence[Tensor], values: Tensor) -> bool:
        """Whether it can fill `values` `[B, T, ...]` with B rows `[T_i, ...]`.

        C checks nothing, so everything that decides where it reads and writes is checked here.
        """
        if not rows or (kind := rows[0].dtype, values.dtype) not in self._functions:
            return False
        longest, *width = values.shape[1:]
        layouts = {(row.dtype, row.is_cpu, row.is_contiguous(), *row.shape[1:]) for row in rows}
        return (
            layouts == {(kind, True, True, *width)}
            and len(rows) == len(values)
            and max([row.shape[0] for row in rows]) <= longest
            and values.is_cpu
            and values.is_contiguous()
            and values.data_ptr() % values.itemsize == 0
        )

    def fill(self, rows: Sequence[Tensor], values: Tensor) -> None:
        """Copy the rows to the beginnings of `values` and zeros behind them, where it `fits`."""
        sources = np.array([row.data_ptr() for row in rows], np.uint64)
        lengths = np.array([row.nbytes for row in rows], np.uint64)
        self._functions[rows[0].dtype, values.dtype](
            len(rows),
            sources.ctypes.data,
            lengths.ctypes.data,
            values.data_ptr(),
            values.nbytes // len(rows),
        )


def find(folder: Path = Path(__file__).parent) -> PaddingKernel | None:
    """The kernel in a folder of modules, or None if it is not there, or not for this machine."""
    if os.environ.get(SWITCH, "0") not in ("", "0"):
        return None
    for suffix in EXTENSION_SUFFIXES:
        if (path := folder / f"_padding{suffix}").exists():
            return _load(path)
    return None


def _load(path: Path) -> PaddingKernel | None:
    try:
        library = ctypes.CDLL(str(path))
        usable = library.heronry_padding_version() == VERSION
        return PaddingKernel(library) if usable and library.heronry_padding_runs_here() else None
    except (OSError, AttributeError):  # built for another machine; a file of another project
        return None


kernel: PaddingKernel | None = find()
