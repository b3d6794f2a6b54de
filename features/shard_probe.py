"""Opening shards in another process first, where HDF5 may crash or never come back.

A single wrong byte can do that: text attributes lie in HDF5's global heap, which has no checksum,
and the library follows the lengths in there (one such byte kept HDF5 1.14 busy for ever).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py

from features.files import check_regular
from features.shard_guard import DATASETS, dataset, read_attributes
from features.workers import WorkerPool

OPEN_SECONDS = 60.0  # for what takes milliseconds on a disk and seconds on a sleepy network


def unopenable(paths: Sequence[Path]) -> set[Path]:
    """Those of `paths` that HDF5 crashes on, or does not come back from."""
    bad: set[Path] = set()
    left = list(paths)
    while left:
        with WorkerPool(1, _silence) as pool:
            pool.submit(os.getpid).result()  # where no worker can start, no file is to blame
            try:
                while left:
                    pool.submit(_open, left[0], OPEN_SECONDS).result()
                    del left[0]
            except BrokenProcessPool:
                bad.add(left.pop(0))
    return bad


def _silence() -> None:
    """Drop what the C library prints when HDF5 has damaged the memory of this process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _open(path: Path, seconds: float) -> None:
    """Have HDF5 read what `read_shard` and `check_shard` have it read, which is not the frames."""
    # The alarm ends the process whatever HDF5 does; a thread would not get its turn meanwhile.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Errors are no crashes: whoever reads the file next meets them too, and reports them.
    with contextlib.suppress(Exception):
        check_regular(path)
        size = path.stat().st_size
        with h5py.File(path, "r", locking=False) as file:
            with contextlib.suppress(Exception):
                read_attributes(file, size)
            for name in DATASETS:
                with contextlib.suppress(Exception):
                    found = dataset(file, name, size)
                    if name != "frames":
                        found[:]
            list(file)
    signal.setitimer(signal.ITIMER_REAL, 0)
