"""Atomic writes, locks, and the rights of files and folders that a group shares."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, flushed to disk, if nothing raises.

    Whoever looks sees the old file, or none, or the whole new one; never a part of it.
    """
    make_folder(path.parent)
    temporary = _new_file(path.parent, f".{path.name}-")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        share(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file the rights of a new one: safetensors writes for the owner alone.

    The umask can only be read by setting it, while other threads make files; so one is made.
    """
    other = _new_file(path.parent, f".{path.name}-")
    path.chmod(stat.S_IMODE(other.stat().st_mode))
    other.unlink()


def seal(path: Path) -> None:
    """Make a file read-only for all who may read it."""
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def _new_file(folder: Path, prefix: str) -> Path:
    """An empty file of a new name; unlike those of `tempfile` it follows the umask."""
    while True:
        path = folder / f"{prefix}{secrets.token_hex(4)}"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each shared as the one that it lies in."""
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        share(each)


def empty_folder(folder: Path) -> None:
    """Make a folder anew, without whatever was in it."""
    remove_folder(folder)
    make_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there.

    Raises:
        OSError: If it cannot be: what stayed would pass for what comes after. Or if it is a link,
            which somebody made to have the content elsewhere: that may be the content of another.
    """
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "it is a symbolic link", str(folder))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def share(path: Path) -> None:
    """Give a new file or folder the rights of the group that shares the folder it lies in.

    That is one with the setgid bit: there the group may do what the owner may, as far as it may in
    the folder, whatever the umask of the one who happens to come first.
    """
    above, own = path.parent.stat().st_mode, path.stat().st_mode
    wanted = own | (own >> 3 & above & stat.S_IRWXG)
    if above & stat.S_ISGID and wanted != own:
        path.chmod(stat.S_IMODE(wanted))


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a copy where links do not reach."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
            temporary.chmod(source.stat().st_mode)


def open_lock(path: Path) -> TextIO:
    """A file to be locked, made where there is none, by whoever of a group comes first."""
    new = not path.exists()
    file = path.open("a+", encoding="utf-8")
    if new:
        share(path)
    return file


def lock(file: IO[str], kind: int) -> bool:
    """Take the system's lock of a file, which ends with its process; whether it could be had.

    Args:
        file: Open; as `open_lock` gives it.
        kind: Of `fcntl.flock`, mostly with `LOCK_NB`, without which it is waited for.

    Raises:
        OSError: If the file system knows no locks.
    """
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        error.filename = file.name
        raise
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
