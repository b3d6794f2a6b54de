"""`python -m pipeline cache prune`: what the work store holds in vain, and its removal.

Shards go if they were neither read nor written for so many days, or if no entry of params.yaml
would use them (of this project: others may share the store); with both, if both are true. Half-done
trainings go by age alone, and never within a day, since nothing says which a process is at.
A backbone that is being extracted is locked, and left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.errors import ParamsError
from features.extraction.store import LOCK
from features.files.writing import lock, open_lock, remove_folder
from pipeline.params.file import Params
from pipeline.storage.survey import StoredFile, stored_backbones, stored_trainings

DAY = 24 * 3600.0  # seconds
LEAST_DAYS = 1.0  # for which a half-done training is left alone


@dataclass(frozen=True)
class Removable:
    """Files that may go together.

    Attributes:
        folder: They lie in.
        files: They.
        what: For people.
        days: Since the last of them was used.
        locked: Whether an extraction holds the folder, so that nothing of it goes.
    """

    folder: Path
    files: tuple[StoredFile, ...]
    what: str
    days: float
    locked: bool = False

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.bytes for file in self.files)

    @property
    def freed(self) -> int:
        """What the disk gains: a file with another name, such as in a cache or DVC's, stays."""
        return sum(file.bytes for file in self.files if file.links == 1)


def removable(
    store: Path, params: Params, *, keep_days: float | None, not_in_params: bool
) -> list[Removable]:
    """What would be removed.

    Args:
        store: Root of the work store.
        params: params.yaml.
        keep_days: What was used within so many days stays; None: age does not matter.
        not_in_params: Whether what an entry of params.yaml would use stays.

    Raises:
        ParamsError: If neither is given, which would be everything, or the days are negative.
    """
    if keep_days is None and not not_in_params:
        raise ParamsError(
            "prune: given neither --keep-days nor --not-in-params; expected one of them, or both"
        )
    if keep_days is not None and not keep_days >= 0:
        raise ParamsError(f"--keep-days {keep_days}: expected a number of days, 0 or more")
    now = time.time()
    found = []
    for backbone in stored_backbones(store, params):
        if not_in_params and backbone.entries != ():
            continue
        files = _older(backbone.shards, now - (keep_days or 0.0) * DAY)
        if files:
            what = f"shards of {backbone.what}"
            with _held(backbone.folder) as free:
                found.append(_removable(backbone.folder, files, what, now, locked=not free))
    if keep_days is not None:
        before = now - max(keep_days, LEAST_DAYS) * DAY
        for folder, files in stored_trainings(store):
            newest = max([folder.stat().st_mtime, *(file.used for file in files)])
            if newest < before:
                found.append(_removable(folder, files, "half-done training", now))
    return found


def remove(items: Sequence[Removable]) -> Iterator[str]:
    """Remove them, telling each step; what was locked or has been used meanwhile stays."""
    for item in items:
        if item.what == "half-done training":
            remove_folder(item.folder)
            yield f"removed {item.folder}"
            continue
        with _held(item.folder) as free:
            if not free:
                yield f"left {item.folder}: it is being extracted"
                continue
            for file in item.files:
                with contextlib.suppress(FileNotFoundError):
                    if StoredFile.at(file.path) == file:
                        file.path.unlink()
                        file.path.with_suffix(".json").unlink(missing_ok=True)
            # The lock stays: whoever waits for it must not hold one that nobody else sees.
            yield f"removed {len(item.files)} shards from {item.folder}"


def _older(files: Sequence[StoredFile], moment: float) -> tuple[StoredFile, ...]:
    return tuple(file for file in files if file.used <= moment)


def _removable(
    folder: Path, files: tuple[StoredFile, ...], what: str, now: float, *, locked: bool = False
) -> Removable:
    used = max((file.used for file in files), default=now)
    return Removable(folder, files, what, max(0.0, now - used) / DAY, locked)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a backbone's lock if nobody has it; whether that is so."""
    with open_lock(folder / LOCK) as file:
        yield lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
