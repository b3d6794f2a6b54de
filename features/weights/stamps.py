"""Whether files of a checkpoint were touched, told by their status alone, without reading them."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from features.weights import packages
from features.weights.lookup import HUB_ID, CheckpointFiles

MOST_FILES = 1000  # in a place; a folder of more is none of one checkpoint
COMMIT = re.compile(r"[0-9a-f]{40}")
Stamp = tuple[str, int, int, int, int]  # path without links, bytes, times of change, inode


def stamps(source: CheckpointFiles) -> list[Stamp] | None:
    """Status of every file in all places where a checkpoint may be found, in order.

    All places count, and not the one alone where it is found now, so that a folder that is put
    before it shows. A file that is written in place has other times, one that replaces it another
    inode.

    Returns:
        Equal lists, if the checkpoint is still what it was. None if that cannot be told: a place
        holds too many files, or the model hub may give others under the same name.
    """
    found: list[Stamp] = []
    try:
        for place in _places(source):
            paths = list(itertools.islice(_files(place), MOST_FILES + 1))
            if len(paths) > MOST_FILES:
                return None
            found += sorted(_stamp(path) for path in paths)
    except (_DoubtError, OSError):  # a link that leads nowhere, or a folder that cannot be read
        return None
    return found


class _DoubtError(Exception):
    """Status does not tell all: of a branch on the model hub, or behind a link to a folder."""


def _places(source: CheckpointFiles) -> Iterator[Path]:
    yield from source.candidates()
    if source.package is not None and packages.installed(source.package):
        yield from packages.places(source.package)
    cached = _hub_folder(source.name)
    if cached is not None and cached.exists():
        if source.commit is None or not COMMIT.fullmatch(source.commit):
            raise _DoubtError
        yield cached / "snapshots" / source.commit


def _hub_folder(name: str) -> Path | None:
    """Folder of a repository in the hub's cache on this machine."""
    if not HUB_ID.fullmatch(name):
        return None
    constants = importlib.import_module("huggingface_hub.constants")
    return Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}")


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        # Settings of a native network's weights lie beside them.
        place = place.parent
    for path in place.rglob("*"):
        if not path.is_dir():
            yield path
        elif path.is_symlink():  # which is not followed
            raise _DoubtError


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    return str(path.resolve()), status.st_size, *times, status.st_ino
