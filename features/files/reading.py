"""Opens regular files for reading, hashes them, and detects whether they have changed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import time
from pathlib import Path
from typing import TextIO

SETTLED_NS = 2_000_000_000  # more than a tick of any file system's clock: FAT has 2 s
Identity = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and of inode."""
_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a file to read its bytes, unless it is a pipe or a device.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK, opening a pipe that has no writer would block for ever, Ctrl-C or not.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            kind = next((name for holds, name in _KINDS if holds(mode)), "something else")
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: Path) -> None:
    """Raise what `open_regular` would, for libraries that open files by their path."""
    open_regular(path).close()


def read_regular(path: Path) -> bytes:
    """All bytes of a file; `OSError` where `open_regular` raises it."""
    with open_regular(path) as file:
        return file.read()


def open_text(path: Path, *, encoding: str = "utf-8") -> TextIO:
    """Open a file of text, line ends as they are; `OSError` where `open_regular` raises it."""
    return io.TextIOWrapper(open_regular(path), encoding=encoding, newline="")


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(status: os.stat_result) -> Identity:
    """Values that change when a file is replaced or written, except within a tick of the clock."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def settled(*times_ns: int) -> bool:
    """Whether a file that changed at these times may be taken to change no more within one tick.

    A file written just now may be written again while the file system's clock shows the same time.

    Args:
        times_ns: Times of the last change of content and of inode, as `os.stat` gives them. They
            may come from another machine, whose clock may be ahead.
    """
    return abs(time.time_ns() - max(times_ns)) > SETTLED_NS
