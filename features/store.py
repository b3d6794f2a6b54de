"""The work store: finished shards outside of DVC's outputs, so that nothing is computed twice."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path

from features.errors import DamagedShardError
from features.files import link_or_copy
from features.shard import Row, Shard, read_shard

RECORDED = ("torch", "transformers", "numpy", "h5py")


class WorkStore:
    """Finished shards of one backbone, outside of DVC's outputs, so that nothing is computed twice.

    Args:
        root: `HERONRY_STORE`.
        fingerprint: Of the backbone; shards under it come from the same numbers.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.folder = root / fingerprint
        self._rows: dict[str, tuple[Shard, int]] | None = None

    def path(self, fingerprint: str) -> Path:
        """Where the shard of that fingerprint is, or will be."""
        return self.folder / f"{fingerprint}.h5"

    def has(self, fingerprint: str) -> bool:
        """Whether the shard is finished; a damaged one is removed and counts as absent."""
        path = self.path(fingerprint)
        if not path.exists():
            return False
        try:
            read_shard(path).verify()
        except DamagedShardError:
            path.unlink()
            return False
        return True

    def row(self, content: str) -> Row | None:
        """A finished row for what the backbone would read, from any shard of it, or None."""
        if self._rows is None:
            self._rows = dict(self._scan())
        place = self._rows.get(content)
        return None if place is None else place[0].row(place[1])

    def deliver(self, fingerprint: str, target: Path) -> None:
        """Put the finished shard at `target`."""
        link_or_copy(self.path(fingerprint), target)

    def record(self, fingerprint: str, *, device: str) -> None:
        """Note beside a shard what must not be in it: when, where and with what it was made."""
        note = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "device": device,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in RECORDED},
        }
        path = self.path(fingerprint).with_suffix(".json")
        path.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")

    def _scan(self) -> Iterator[tuple[str, tuple[Shard, int]]]:
        for path in sorted(self.folder.glob("*.h5")):
            try:
                shard = read_shard(path)
                shard.verify()
            except DamagedShardError:
                continue  # it was removed just now, or is damaged: `has` removes it when asked for
            for index, content in enumerate(shard.contents):
                yield content, (shard, index)
