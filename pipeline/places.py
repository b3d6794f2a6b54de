"""Whether the folders that the stages write to can be written, and whether locks work there."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from features.errors import HeronryError
from features.files import lock
from features.locations import store_root
from features.machine import machine_error

OUTPUTS = ("cache", "data", "reports", "runs")  # of the stages; any may be a link to another disk
SOME_BYTES = 4096  # fewer may go where a full disk keeps small files


def place_problems() -> Iterator[str]:
    """One line for each place that cannot be used as it has to be."""
    try:
        store = store_root()
    except HeronryError as error:
        yield str(error)
    else:
        fault = _fault(store, locked=True)
        if fault is not None:
            yield f"the work store (HERONRY_STORE) {store}: {fault}"
    project = _fault(Path.cwd())
    if project is not None:
        yield f"the project: {project}"
        return
    for name in OUTPUTS:
        fault = _fault(Path.cwd() / name)
        if fault is not None:
            yield f"{name}/: {fault}"


def _fault(folder: Path, *, locked: bool = False) -> HeronryError | None:
    """Why nothing can be written to a folder, which is looked for or would be made."""
    while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile("w+", dir=folder, prefix=".heronry-") as file:
            file.write(" " * SOME_BYTES)
            file.flush()
            if locked:
                lock(file.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        error.filename = str(folder)
        return machine_error(error)
    return None
