"""Writes files atomically, locks them, and sets the rights of files that a group shares."""

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

from features.errors import ParamsError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context of a temporary path that atomically replaces `path`, unless an exception is raised.

    Readers see the old file or the complete new one, never a part of it, even after a power cut.
    """
    make_folder(path.parent)
    temporary = _new_file(path.parent, f".{path.name}-")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        share(temporary)
        temporary.replace(path)
        # A new name survives a power cut only once its folder is on the disk too.
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file the rights of a new one; safetensors makes it readable by the owner alone."""
    # Not by `os.umask`, which can be read only by setting it, while other threads make files.
    other = _new_file(path.parent, f".{path.name}-")
    path.chmod(stat.S_IMODE(other.stat().st_mode))
    other.unlink()


def seal(path: Path) -> None:
    """Make a file read-only for everybody."""
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def _new_file(folder: Path, prefix: str) -> Path:
    """Make an empty file of a new name that follows the umask, unlike those of `tempfile`."""
    while True:
        path = folder / f"{prefix}{secrets.token_hex(4)}"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each with the sharing rights of its parent."""
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        share(each)


def empty_folder(folder: Path) -> None:
    """Remove a folder with its content, and make it again."""
    remove_folder(folder)
    make_folder(folder)


def check_new(out: Path) -> None:
    """Refuse a folder to export into that holds something.

    Raises:
        ParamsError: Naming it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParamsError(f"{out} is not empty; expected a new folder to export into")


def remove_folder(folder: Path) -> None:
    """Remove a folder with its content, if it exists.

    Raises:
        OSError: If it cannot be removed, since the remains would be mistaken for new content; or
            if it is a symbolic link, whose target may belong to somebody else.
    """
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "it is a symbolic link", str(folder))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def share(path: Path) -> None:
    """Give a new file or folder the rights of the group that shares its parent folder.

    In a folder with the setgid bit the group gets the owner's rights, as far as it has them in the
    folder, whatever the umask of the user who makes the file.
    """
    above, own = path.parent.stat().st_mode, path.stat().st_mode
    wanted = own | (own >> 3 & above & stat.S_IRWXG)  # the owner's bits in the group's place
    if above & stat.S_ISGID and wanted != own:
        path.chmod(stat.S_IMODE(wanted))


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where hard links are impossible."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
            temporary.chmod(source.stat().st_mode)


def open_lock(path: Path) -> TextIO:
    """Open a file to lock; make it where it is missing, with the group's rights."""
    new = not path.exists()
    file = path.open("a+", encoding="utf-8")
    if new:
        share(path)
    return file


def lock(file: IO[str], kind: int) -> bool:
    """Take the system's lock of an open file, which ends with the process; False if it is taken.

    Args:
        file: Open file, as from `open_lock`.
        kind: Operation of `fcntl.flock`; without `LOCK_NB` it waits.

    Raises:
        OSError: If the file system does not support locks.
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
