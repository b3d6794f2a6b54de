"""Turns errors of the operating system (disk, rights, locks, limits) into path, cause and remedy.

`features.process.command` does so for commands, and `with_machine_errors` for worker processes.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from features.errors import HeronryError, MachineError
from features.process.memory import out_of_memory

P = ParamSpec("P")
R = TypeVar("R")

_KEPT = "What was finished is kept; run the same command again to resume"
_ROOM = (
    "free space there (`df -h`, `quota -s`), or put the project, or the folder that HERONRY_STORE "
    f"or TMPDIR names, on a larger disk. {_KEPT}"
)
_RIGHTS = (
    "let this user write there (`ls -ld`, `id`; of a folder that a group shares: "
    "`chmod -R g+rwX` and `chmod g+s`), or name another folder"
)
_PLACE = "a file is where a folder is expected, or the other way round: remove it, or name another"
_FAULT = f"the disk or the network file system fails: see `dmesg`, mount it again. {_KEPT}"
_LOCKS = (
    "file locks do not work there: mount it with locks (Lustre: `-o flock`, NFS: with lockd), or "
    "set HERONRY_STORE to a folder on a disk of this machine"
)
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: f"raise the limit of file sizes (`ulimit -f`), or use another disk. {_KEPT}",
    errno.EROFS: "it is mounted read-only: mount it for writing, or name a folder elsewhere",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: _PLACE,
    errno.EISDIR: _PLACE,
    errno.EEXIST: _PLACE,
    errno.ENOENT: (
        "it was removed meanwhile, or cannot be created there: run `dvc repro`, or set "
        "HERONRY_STORE (or HOME) to a folder that can be written"
    ),
    errno.ENAMETOOLONG: "use a shorter path: fewer or shorter folders, or shorter ids",
    errno.ELOOP: "its symbolic links lead in a circle: correct them",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`)",
    errno.ENFILE: "too many files are open on this machine: close other programs",
    errno.ENOMEM: f"there is too little memory: end other programs, or use fewer workers. {_KEPT}",
    errno.EIO: _FAULT,
    errno.ESTALE: _FAULT,
    errno.ENODEV: _FAULT,
    errno.ENXIO: _FAULT,
    errno.ENOLCK: _LOCKS,
    errno.ENOSYS: _LOCKS,
    errno.EOPNOTSUPP: _LOCKS,
    errno.ENOTSUP: _LOCKS,
}
# Libraries that raise their own errors for those of the system, and how they spell its number.
_LIBRARIES = ("h5py", "pyarrow", "safetensors", "safetensors_rust")
_NUMBER = re.compile(r"(?:os error|errno =|\[errno) (\d+)", re.IGNORECASE)
_TEMPORARY = re.compile(r"\.(.+)-[a-z0-9_]{8}")  # of `features.files.writing.replacing`


def machine_error(error: BaseException) -> MachineError | None:
    """The message for an error of the operating system; None for any other error."""
    if out_of_memory(error):
        return MachineError(f"out of memory ({error}): {REMEDIES[errno.ENOMEM]}")
    number = _errno(error)
    if number is None:
        return None
    cause = getattr(error, "strerror", None) or os.strerror(number)
    remedy = REMEDIES.get(number, f"see what is wrong with it. {_KEPT}")
    return MachineError(f"cannot read or write {_place(error)} ({cause}): {remedy}")


def with_machine_errors(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function, and turn errors of the machine into `MachineError`.

    For functions in worker processes: an error loses its traceback on the way back.
    """
    try:
        return function(*args, **kwargs)
    except HeronryError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        known = machine_error(error)
        if known is None:
            raise
        raise known from error


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    foreign = type(error).__module__.partition(".")[0] in _LIBRARIES
    if not (foreign or isinstance(error, OSError | RuntimeError)):
        return None
    found = _NUMBER.search(str(error))
    return int(found[1]) if found and int(found[1]) in errno.errorcode else None


def _place(error: BaseException) -> str:
    """The file or folder that the error is about."""
    named = getattr(error, "filename", None)
    second = getattr(error, "filename2", None)  # the target of a copy, whose disk may be full
    if second is not None and not isinstance(error, FileNotFoundError):
        named = second
    if isinstance(named, bytes | str | os.PathLike):
        return _shown(os.fsdecode(named))
    # Errors of writing to an open file do not name it; variables of the innermost frames do.
    for value in _locals(error.__traceback__):
        if isinstance(value, io.IOBase) and isinstance(name := getattr(value, "name", None), str):
            return _shown(name)
        if isinstance(value, PurePath):
            return _shown(str(value))
    return f"a file below {Path.cwd()}"


def _locals(trace: TracebackType | None) -> Iterator[Any]:
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        values = list(frame.f_locals.values())
        opened = [value for value in values if isinstance(value, io.IOBase)]
        # Files open for writing first: a copy has its source open as well.
        yield from sorted(opened, key=lambda file: getattr(file, "mode", "r") in ("r", "rb"))
        yield from (value for value in values if isinstance(value, PurePath))


def _shown(path: str) -> str:
    temporary = _TEMPORARY.fullmatch(Path(path).name)
    return str(Path(path).with_name(temporary[1])) if temporary else path
