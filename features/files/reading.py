"""Opens regular files for reading, and tells whether they have changed."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from pathlib import Path
from typing import TextIO

SETTLED_NS = 2_000_000_000


Identity = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and of inode."""


_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a file to read its bytes, unless it is one that may never end or never begin.

    Raises:
        OSError: If it cannot be opened, or is a pipe, a device or a folder: to open a pipe that
            nobody writes into would wait for ever, Ctrl-C or not.
    """
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


def identity(status: os.stat_result) -> Identity:
    """What changes whenever a file is replaced or written to, save within a tick of the clock."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def settled(status: os.stat_result) -> bool:
    """Whether a file has not changed just now: else it may again, within the clock's same tick.

    The times may come from another machine, whose clock is ahead.
    """
    age_ns = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    return abs(age_ns) > SETTLED_NS
