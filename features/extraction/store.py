"""The work store: finished shards outside of DVC's outputs, so that nothing is computed twice."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from features.cache.shard import Row, Shard, read_shard
from features.errors import CacheError, DamagedShardError
from features.files.writing import link_or_copy, lock, make_folder, open_lock, replacing
from features.process.memory import DOES_NOT_FIT

RECORDED = ("torch", "transformers", "numpy", "h5py")
LOCK = "lock"


class WorkStore:
    """Finished shards of one backbone, outside of DVC's outputs, so that nothing is computed twice.

    Args:
        root: `HERONRY_STORE`.
        fingerprint: Of the backbone; shards under it come from the same numbers.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.folder = root / fingerprint
        self._places: dict[str, tuple[Path, int]] | None = None
        self._open: Shard | None = None
        self._sound: set[Path] = set()  # verified by this process: once is enough
        self.reserved: frozenset[str] = frozenset()

    def path(self, fingerprint: str) -> Path:
        """Where the shard of that fingerprint is, or will be."""
        return self.folder / f"{fingerprint}.h5"

    def has(self, fingerprint: str) -> bool:
        """Whether the shard is finished; a damaged one is removed and counts as absent.

        One that lacks what did not fit some machine's memory is not: that is tried again.
        """
        path = self.path(fingerprint)
        if not path.exists():
            return False
        try:
            shard = read_shard(path)
            shard.verify()
        except DamagedShardError:
            path.unlink()
            return False
        self._sound.add(path)
        return not any(reason.startswith(DOES_NOT_FIT) for reason in shard.rejected.values())

    def reserve(self, fingerprints: Iterable[str]) -> None:
        """Name the shards of a plan, which then lend no rows.

        What a batch gives differs in its last bits from another batch's. If a shard copied what it
        has in common with others of its plan, its bytes would depend on which were finished first.
        """
        self.reserved = frozenset(fingerprints)
        self._places = None

    def holds(self, content: str) -> bool:
        """Whether some finished shard has a row for what the backbone would read."""
        return content in self._index()

    def row(self, content: str) -> Row | None:
        """A finished row for what the backbone would read, from any shard of it, or None."""
        place = self._index().get(content)
        if place is None:
            return None
        path, index = place
        if self._open is None or self._open.path != path:
            # One at a time: what was read of a map counts as memory.
            self._open = read_shard(path)
        return self._open.row(index)

    def add(self, fingerprint: str, *, device: str) -> None:
        """Take note of a shard that was just finished at `path(fingerprint)`."""
        path = self.path(fingerprint)
        self._record(path, device)
        if self._places is not None and fingerprint not in self.reserved:
            self._places |= _places(read_shard(path))

    def deliver(self, fingerprint: str, target: Path) -> None:
        """Put the finished shard at `target`."""
        link_or_copy(self.path(fingerprint), target)

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the backbone's folder alone; say who has it while waiting.

        The lock is the system's, so it ends with its process, however that ends.

        Args:
            shared: Together with others who do so: each finishes other shards.
        """
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        make_folder(self.folder)
        with open_lock(self.folder / LOCK) as file:
            if not lock(file, kind | fcntl.LOCK_NB):
                file.seek(0)
                owner = file.read().strip() or "another process"
                sys.stderr.write(f"waiting: the same backbone is being extracted by {owner}\n")
                sys.stderr.flush()
                lock(file, kind)
            for stale in () if shared else self.folder.glob(".*-*"):  # of a writer killed
                stale.unlink(missing_ok=True)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}, in {Path.cwd()}\n")
            file.flush()
            yield

    def _index(self) -> dict[str, tuple[Path, int]]:
        if self._places is None:
            self._places = {}
            for path in sorted(self.folder.glob("*.h5")):
                if path.stem in self.reserved:
                    continue
                try:
                    shard = read_shard(path)
                    if path not in self._sound:
                        shard.verify()
                except DamagedShardError:
                    continue  # `has` removes it when it is asked for
                except CacheError:
                    if path.exists():
                        raise
                    continue  # removed just now
                self._places |= _places(shard)
        return self._places

    def _record(self, path: Path, device: str) -> None:
        """Note beside a shard what must not be in it: when, where and with what it was made."""
        note = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "device": device,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in RECORDED},
        }
        with replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _places(shard: Shard) -> dict[str, tuple[Path, int]]:
    return {content: (shard.path, index) for index, content in enumerate(shard.contents)}
