"""Drop files from the page cache, and check that they were read from the disk."""

from __future__ import annotations

import os
from pathlib import Path


def evicted(folder: Path) -> None:
    """Drop the files of a folder from the page cache, where the system can."""
    if hasattr(os, "posix_fadvise"):
        for path in folder.iterdir():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def disk_bytes() -> int:
    """Bytes that this process has had read from a disk."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])
