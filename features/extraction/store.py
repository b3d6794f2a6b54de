"""Keeps finished shards outside of DVC's outputs, which DVC deletes before it reruns a stage."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from features.cache.shard import Row, SpooledRow, read_shard
from features.errors import DamagedShardError
from features.extraction.contents import ContentIndex
from features.files.writing import link_or_copy, lock, make_folder, open_lock, replacing
from features.process.memory import DOES_NOT_FIT

RECORDED = ("torch", "transformers", "numpy", "h5py")  # packages whose versions are noted
LOCK = "lock"


class WorkStore:
    """Finished shards of one backbone in the work store.

    Args:
        root: `HERONRY_STORE`.
        fingerprint: Fingerprint of the backbone's provenance: equal ones compute equal numbers.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.folder = root / fingerprint
        self._contents: ContentIndex | None = None
        self.reserved: frozenset[str] = frozenset()

    def path(self, fingerprint: str) -> Path:
        """Path of the shard with that fingerprint, finished or not."""
        return self.folder / f"{fingerprint}.h5"

    def has(self, fingerprint: str) -> bool:
        """Whether the shard is finished; a damaged one is removed and counts as absent.

        A shard that rejects utterances for lack of memory is not finished: they are tried again.
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
        return not any(reason.startswith(DOES_NOT_FIT) for reason in shard.rejected.values())

    def reserve(self, fingerprints: Iterable[str]) -> None:
        """Exclude the shards of a plan from `held` and `rows`.

        An utterance's features differ in their last bits from batch to batch. If shards copied rows
        from others of their plan, their bytes would depend on which were finished first.
        """
        self.reserved = frozenset(fingerprints)

    def held(self, contents: Sequence[str]) -> set[str]:
        """Those of some content hashes of which some finished shard seems to have a row."""
        return self._index.held(contents, without=self.reserved)

    def rows(self, contents: Sequence[str]) -> Iterator[Row | SpooledRow]:
        """Finished rows of some content hashes from any shards, as far as there are sound ones.

        They have no ids, and come in the order in which they lie in the shards.
        """
        return self._index.rows(contents, without=self.reserved)

    def add(self, fingerprint: str, *, device: str) -> None:
        """Register a shard that was just finished at `path(fingerprint)`."""
        path = self.path(fingerprint)
        self._record(path, device)
        if self._contents is not None and fingerprint not in self.reserved:
            self._contents.add(path)

    def take(self, fingerprint: str, source: Path) -> None:
        """Link or copy a sound shard of a cache folder into the store."""
        link_or_copy(source.resolve(), self.path(fingerprint))
        self.add(fingerprint, device="another cache")

    def deliver(self, fingerprint: str, target: Path) -> None:
        """Link or copy a finished shard to `target`."""
        link_or_copy(self.path(fingerprint), target)

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
        """Lock the backbone's folder, naming its owner on stderr while waiting.

        The lock is the operating system's, so it ends with its process, however that ends.

        Args:
            shared: Whether other processes may hold it too, each to finish other shards.
            wait: Whether to wait for its owner; whoever holds another lock may not.

        Yields:
            Whether it is locked.
        """
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        make_folder(self.folder)
        with open_lock(self.folder / LOCK) as file:
            if not lock(file, kind | fcntl.LOCK_NB):
                if not wait:
                    yield False
                    return
                file.seek(0)
                owner = file.read().strip() or "another process"
                sys.stderr.write(f"waiting: the same backbone is being extracted by {owner}\n")
                sys.stderr.flush()
                lock(file, kind)
            for stale in (
                () if shared else self.folder.glob(".*-*")
            ):  # files of a writer that was killed
                stale.unlink(missing_ok=True)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}, in {Path.cwd()}\n")
            file.flush()
            yield True

    @property
    def _index(self) -> ContentIndex:
        if self._contents is None:
            self._contents = ContentIndex(self.folder)
        return self._contents

    def _record(self, path: Path, device: str) -> None:
        """Note beside a shard what must not be in its bytes: date, host and versions."""
        note = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "device": device,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in RECORDED},
        }
        with replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
