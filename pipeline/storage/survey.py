"""What lies in the work store, and which entry of params.yaml it belongs to, if any.

Weights are not loaded for that: what an entry says of the numbers is compared with what a shard
says. Where that leaves a doubt (a checkpoint that changed under its name), a shard counts as used.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.backbone.entry import BackboneEntry
from features.cache.shard import read_shard
from features.errors import CacheError, ParamsError
from pipeline.params.file import Params
from pipeline.runtime.resume import NAME

FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """A file of the work store.

    Attributes:
        path: Where.
        bytes: Its size.
        links: How many names it has; with two or more, removing one frees nothing.
        used: When it was last read or written, in seconds since 1970.
    """

    path: Path
    bytes: int
    links: int
    used: float

    @classmethod
    def at(cls, path: Path) -> StoredFile:
        """Look at a file."""
        status = path.stat()
        used = max(status.st_atime, status.st_mtime)
        return cls(path, status.st_size, status.st_nlink, used)


@dataclass(frozen=True)
class StoredBackbone:
    """The finished shards of one backbone.

    Attributes:
        folder: `<store>/<fingerprint>`.
        shards: Its shards.
        what: Kind and checkpoint, for people.
        entries: Entries of params.yaml that would use them; None where no shard can be read.
    """

    folder: Path
    shards: tuple[StoredFile, ...]
    what: str
    entries: tuple[str, ...] | None

    @property
    def bytes(self) -> int:
        """Size of the shards."""
        return sum(shard.bytes for shard in self.shards)


def stored_backbones(store: Path, params: Params) -> Iterator[StoredBackbone]:
    """Each backbone that the store holds shards of."""
    entries = list(_entries(params))
    for folder in _named(store):
        shards = tuple(_files(folder, "*.h5"))
        if not shards:
            continue
        provenance = _provenance(shards)
        if provenance is None:
            yield StoredBackbone(folder, shards, "an unknown backbone", None)
        else:
            using = tuple(entry.name for entry in entries if describes(entry, provenance))
            parts = (provenance.get("kind"), provenance.get("checkpoint"))
            what = " ".join(str(part) for part in parts if part)
            yield StoredBackbone(folder, shards, what, using)


def stored_trainings(store: Path) -> Iterator[tuple[Path, tuple[StoredFile, ...]]]:
    """The folder of each half-done training, and its files."""
    for folder in _named(store / NAME):
        yield folder, tuple(_files(folder, "**/*"))


def describes(entry: BackboneEntry, provenance: Mapping[str, Any]) -> bool:
    """Whether shards of that provenance may be what an entry asks for."""
    return not entry.differences(provenance)


def _entries(params: Params) -> Iterator[BackboneEntry]:
    for name in params.backbones:
        try:
            yield params.backbone(name)
        except ParamsError:
            continue  # `python -m pipeline check` tells


def _named(folder: Path) -> list[Path]:
    """Folders named by a fingerprint: nothing else in a store is ours to judge."""
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
            continue  # removed by whoever works here


def _provenance(shards: tuple[StoredFile, ...]) -> Mapping[str, Any] | None:
    for shard in shards:
        try:
            with unused(shard.path):
                return read_shard(shard.path).provenance
        except (CacheError, FileNotFoundError):
            continue
    return None


@contextlib.contextmanager
def unused(path: Path) -> Iterator[None]:
    """Look into a file without that counting as a use of it."""
    before = path.stat()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # somebody else's file: then it was used just now
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
