"""The work store: what it holds, which entries of params.yaml use that, and pruning.

Weights are not loaded to tell which entry uses a shard: the shard's provenance is compared with the
entry's settings. Where that leaves a doubt (a checkpoint that changed under its name), the shard
counts as used.

Pruning removes shards that were neither read nor written for some days, or that no entry of
params.yaml would use (of this project: others may share the store), or, if asked for both, those
that are both. Half-done trainings and predictions, transcripts, the answers of speech language
models, and what is known of networks go by age alone, and never within a day, since nothing says
whether a process is still at work on one. A backbone that is being extracted is locked, and stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.backbone.entry import BackboneEntry
from features.backbone.memory import FOLDER as NETWORKS
from features.cache.shard import read_shard
from features.errors import CacheError, ParamsError
from features.extraction.contents import NAME as INDEX
from features.extraction.store import LOCK
from features.files.writing import lock, open_lock, remove_folder
from features.transcription.transcribe import STORE
from pipeline.params.file import Params
from pipeline.runs.answers import STORE as ANSWERS
from pipeline.runtime.resume import NAME, PREDICTIONS

FINGERPRINT = re.compile(r"[0-9a-f]{64}")
DAY = 24 * 3600.0  # seconds
LEAST_DAYS = 1.0  # for which `WORK` is kept
WORK = {  # what the store holds beside shards, by its folder
    NAME: "half-done training",
    PREDICTIONS: "half-done prediction",
    STORE: "transcripts",
    ANSWERS: "answers",
    NETWORKS: "what is known of a network",
}


@dataclass(frozen=True)
class StoredFile:
    """A file of the work store.

    Attributes:
        links: Number of hard links; with two or more, removing one frees nothing.
        used: Time of the last read or write, in seconds since 1970.
    """

    path: Path
    bytes: int
    links: int
    used: float

    @classmethod
    def at(cls, path: Path) -> StoredFile:
        """Read the status of a file."""
        status = path.stat()
        # Some file systems do not record reads; then the last write counts.
        used = max(status.st_atime, status.st_mtime)
        return cls(path, status.st_size, status.st_nlink, used)


@dataclass(frozen=True)
class StoredFolder:
    """The shards of a backbone, or other files that belong together.

    Attributes:
        folder: `<store>/<fingerprint>`, or `<store>/<folder of WORK>/<fingerprint>`.
        what: Kind and checkpoint of the backbone, or a value of `WORK`.
        entries: Entries of params.yaml that would use the shards; None where no shard can be read.
        locked: Whether an extraction holds the folder, so that nothing of it is removed.
    """

    folder: Path
    files: tuple[StoredFile, ...]
    what: str
    entries: tuple[str, ...] | None = None
    locked: bool = False

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.bytes for file in self.files)

    @property
    def freed(self) -> int:
        """Bytes that the disk gains: a file with another hard link (a cache, DVC's) stays."""
        return sum(file.bytes for file in self.files if file.links == 1)

    @property
    def days(self) -> float:
        """Days since the last of the files was used."""
        now = time.time()
        return max(0.0, now - max((file.used for file in self.files), default=now)) / DAY


def stored_backbones(store: Path, params: Params) -> Iterator[StoredFolder]:
    """Every backbone that the store holds shards of."""
    # All shards of a folder have one fingerprint, so the provenance of one describes them all.
    entries = list(_entries(params))
    for folder in _named(store):
        shards = tuple(_files(folder, "*.h5"))
        if not shards:
            continue
        provenance = _provenance(shards)
        if provenance is None:
            yield StoredFolder(folder, shards, "an unknown backbone")
        else:
            using = tuple(entry.name for entry in entries if not entry.differences(provenance))
            parts = (provenance.get("kind"), provenance.get("checkpoint"))
            what = " ".join(str(part) for part in parts if part)
            yield StoredFolder(folder, shards, what, using)


def stored_work(store: Path) -> Iterator[StoredFolder]:
    """Every half-done training and prediction, transcripts and answers, and what is known."""
    for name, what in WORK.items():
        for folder in _named(store / name):
            yield StoredFolder(folder, tuple(_files(folder, "**/*")), what)


def removable(
    store: Path, params: Params, *, keep_days: float | None, not_in_params: bool
) -> list[StoredFolder]:
    """Files that pruning would remove.

    Args:
        store: Root of the work store.
        params: params.yaml.
        keep_days: Keep what was used within so many days; None: age does not matter.
        not_in_params: Keep what an entry of params.yaml would use.

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
        if not_in_params and backbone.entries != ():  # None, which is unknown, counts as used
            continue
        before = now - (keep_days or 0.0) * DAY
        files = tuple(file for file in backbone.files if file.used <= before)
        if files:
            with _held(backbone.folder) as free:
                found.append(replace(backbone, files=files, locked=not free))
    if keep_days is not None:
        before = now - max(keep_days, LEAST_DAYS) * DAY
        for work in stored_work(store):
            used = (file.used for file in work.files)
            # The folder's own time counts as well: a training that begins has no file yet.
            if max([work.folder.stat().st_mtime, *used]) < before:
                found.append(work)
    return found


def remove(items: Sequence[StoredFolder]) -> Iterator[str]:
    """Remove files, yielding a line for each step; what is locked or was used meanwhile stays."""
    for item in items:
        if item.what in WORK.values():
            remove_folder(item.folder)
            yield f"removed {item.folder}"
            continue
        with _held(item.folder) as free:
            if not free:
                yield f"left {item.folder}: it is being extracted"
                continue
            for file in item.files:
                with contextlib.suppress(FileNotFoundError):
                    # Else it was used or replaced since it was listed.
                    if StoredFile.at(file.path) == file:
                        file.path.unlink()
                        file.path.with_suffix(".json").unlink(missing_ok=True)
            (item.folder / INDEX).unlink(missing_ok=True)  # made again for shards that are left
            # The lock file stays: a process that waits for it would else lock one that is gone.
            yield f"removed {len(item.files)} shards from {item.folder}"


def _entries(params: Params) -> Iterator[BackboneEntry]:
    for name in params.all_backbones:
        try:
            yield params.backbone(name)
        except ParamsError:
            continue  # `heronry check` reports it


def _named(folder: Path) -> list[Path]:
    """Folders named by a fingerprint: whatever else is in a store was not written by us."""
    return sorted(
        path
        for path in folder.glob("*")
        if FINGERPRINT.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def _files(folder: Path, pattern: str) -> Iterator[StoredFile]:
    for path in sorted(folder.glob(pattern)):
        try:
            if path.is_file() and not path.is_symlink():
                yield StoredFile.at(path)
        except FileNotFoundError:
            continue  # removed by a process that works here


def _provenance(shards: tuple[StoredFile, ...]) -> Mapping[str, Any] | None:
    for shard in shards:
        try:
            with _unused(shard.path):
                return read_shard(shard.path).provenance
        except (CacheError, FileNotFoundError):
            continue
    return None


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Read a file without counting that as a use: its times are set back."""
    before = path.stat()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another user's file: then it counts as used now
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a backbone's lock if it is free; yields whether it was."""
    with open_lock(folder / LOCK) as file:
        yield lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
