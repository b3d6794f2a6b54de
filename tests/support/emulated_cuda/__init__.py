"""Two CUDA devices that a CPU emulates, for code that has met no real one.

Programs run in processes of their own, in the environment that `environment` returns. They see
`torch.cuda` with two devices, and tensors on `cuda:0` and `cuda:1` that hold real numbers. What a
device would not do is an error here: an operation on tensors of two devices, or of one and the
host's; numbers of the host read off a device's tensor. What it does late is late here: a copy that
is queued holds noise until its event, stream or device is waited for, on the right device. Memory
is limited and counted, float32 products are rounded as TF32 rounds them unless it is switched
off, autocast and autograd follow their rules for CUDA.

Not emulated: speed, the rounding of kernels and their choice, cuDNN, NCCL, CUDA graphs, streams
beside the default one, and errors that only a driver raises.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.support.paths import ROOT

FOLDER = Path(__file__).parent
LIBRARY = "EMULATED_CUDA_LIBRARY"  # variable with the path of the compiled part


def lacking() -> str:
    """What this machine lacks for it; empty: nothing."""
    import torch  # not in processes with emulated devices, which load the library before

    if torch.version.cuda or torch.version.hip:
        return "torch is built for GPUs; emulated ones need a build for CPUs"
    if sys.platform != "linux":
        return "emulated devices are compiled on Linux alone"
    return "" if shutil.which("g++") else "no C++ compiler (g++)"


def environment(folder: Path) -> dict[str, str]:
    """Variables for a process with emulated devices.

    Args:
        folder: Where to put the compiled part.
    """
    library, found = folder / "guard.so", find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch = Path(found.origin).parent
    if not library.exists():
        includes = [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include"]
        links = [f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", "-lc10", "-ltorch_cpu"]
        options = ["-shared", "-fPIC", "-std=c++20", "-O0"]
        source = FOLDER / "guard.cpp"
        command = ["g++", *options, *includes, str(source), "-o", str(library), *links]
        subprocess.run(command, check=True)
    path = os.pathsep.join((str(FOLDER / "start"), str(ROOT)))
    return os.environ | {"PYTHONPATH": path, LIBRARY: str(library), "OMP_NUM_THREADS": "1"}
