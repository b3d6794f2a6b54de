"""Looks up which operations of emulated runs have kernels in a torch that is built for CUDA.

export EMULATED_CUDA_OPERATIONS=operations.txt
pytest tests/features/process/test_emulated_cuda.py
python tests/support/emulated_cuda/kernels.py operations.txt    # with that torch, without a GPU
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

KEYS = (
    *("CUDA", "CompositeImplicitAutograd", "CompositeExplicitAutograd"),
    "CompositeExplicitAutogradNonFunctional",
)
COMPOSED = {"gru", "lstm"}  # of torch's Python functions; cuDNN's


def main(path: Path) -> None:
    """Print how many operations there are, and those without a kernel."""
    names = sorted(set(path.read_text(encoding="utf-8").split()) - COMPOSED)
    lacking = [name for name in names if not has_kernel(name)]
    sys.stdout.write(
        f"torch {torch.__version__}: {len(names)} operations, without a kernel: {lacking or None}\n"
    )


def has_kernel(name: str) -> bool:
    """Whether an operation such as `aten.add.Tensor` can be computed on a GPU."""
    space, operation, overload = name.split(".")
    full = f"{space}::{operation}" + ("" if overload == "default" else f".{overload}")
    c: Any = torch._C
    return any(c._dispatch_has_kernel_for_dispatch_key(full, key) for key in KEYS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
