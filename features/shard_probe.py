"""Opening shards in another process first, where HDF5 may crash or never come back.

A single wrong byte can do that: text attributes lie in HDF5's global heap, which has no checksum,
and the library follows the lengths in there (one such byte kept HDF5 1.14 busy for ever).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

OPEN_SECONDS = 60.0  # for what takes milliseconds on a disk and seconds on a sleepy network
PROBE = """
import math, os, signal, sys
import h5py
def harmless(file, name, size):  # as features.shard_guard, which may not be found from here
    if name == "frames" or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    found = file[name]
    if found.is_virtual or found.external:
        return False
    return math.prod(found.shape) * found.dtype.itemsize <= size
for path in sys.argv[2:]:
    # The system's alarm ends the process, whatever HDF5 does, and also where nobody waits any more.
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise OSError
        size = os.path.getsize(path)
        with h5py.File(path, "r", locking=False) as file:
            [file.attrs[name] for name in file.attrs if file.attrs.get_id(name).shape == ()]
            [file[name][:] for name in file if harmless(file, name, size)]
    except Exception:
        pass  # told by the process that asks
    sys.stdout.write("done\\n")
    sys.stdout.flush()
"""


def unopenable(paths: Sequence[Path]) -> set[Path]:
    """Those of `paths` that HDF5 crashes on, or does not come back from."""
    bad: set[Path] = set()
    left = list(paths)
    while left:
        done = _opened(left)
        bad |= set(left[done : done + 1])
        left = left[done + 1 :]
    return bad


def _opened(paths: Sequence[Path]) -> int:
    """How many of `paths`, from the first on, another process gets through."""
    command = [sys.executable, "-c", PROBE, str(OPEN_SECONDS), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        return sum(1 for _ in child.stdout)
