"""What is known of an entry's backbone without loading it, remembered in the work store.

The provenance of features names their weights by a hash, so that a network has to be loaded only to
learn that all features are there already. So what a load told is kept in `known/` of the work
store, with everything that could make the next load tell something else: the entry, the code of
this package, the installed packages, and the status of the checkpoint's files
(`features.weights.stamps`). Where any of it differs, or cannot be told, nothing is remembered, and
the network is loaded. Nothing is computed by what is remembered: it finds shards that are finished,
whose folder is named by the hash of the same provenance.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import site
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from features.backbone.base import Backbone, Reads, innermost
from features.backbone.entry import BackboneEntry, fingerprint, recorded_by, store_key
from features.backbone.windows import windowed_in
from features.errors import HeronryError
from features.files.reading import settled
from features.files.records import read_json
from features.files.writing import replacing
from features.stream import StreamSpec
from features.weights.checkpoint import Checkpoint
from features.weights.stamps import Stamp, stamps

FOLDER, KNOWN = "known", "known.json"
UNREADABLE = (HeronryError, OSError, KeyError, TypeError, ValueError)  # what a foreign file raises


@dataclass(frozen=True)
class Known:
    """What a backbone says of itself once it is loaded.

    Attributes:
        key: Folder name of its shards in the work store.
        provenance: All that decides the entry's numbers.
        spec: Width and kind of the frames.
        reads: Modality of an utterance that is read.
        grid: Where its windows begin, of `long: window`.
        notices: Whether it has notices of utterances that it reads in part.
        weights: Status of the files that it was loaded from.
        recorded: Provenance that a cache of another project has already, which is not remembered.
    """

    key: str
    provenance: Mapping[str, Any]
    spec: StreamSpec
    reads: Reads
    grid: tuple[int, int, float] | None
    notices: bool
    weights: list[Stamp]
    recorded: Mapping[str, Any] | None = None


class Memory:
    """What the work store remembers of an entry.

    Args:
        entry: Backbone entry of params.yaml.
        root: Root of the work store.
    """

    def __init__(self, entry: BackboneEntry, root: Path) -> None:
        self.entry = entry
        given = [entry.settings(), entry.store_dtype, dict(entry.options)]
        settings = json.dumps(given, default=str)  # a path may be given as one
        self._folder = root / FOLDER / _sha256(settings)
        self._weights = _weights(entry)
        self._facts = _sha256(json.dumps([settings, _code(), _installed(), self._weights]))

    def recall(self) -> Known | None:
        """What a load of the backbone would tell; None: load it."""
        if self._weights is None:
            return None
        try:
            found = read_json(self._folder / KNOWN)
            if found["facts"] != self._facts:
                return None
            grid, reads = found["grid"], found["reads"]
            if reads not in get_args(Reads) or not isinstance(found["provenance"], dict):
                return None
            return Known(
                key=fingerprint(found["provenance"]),
                provenance=found["provenance"],
                spec=StreamSpec(**found["spec"]),
                reads=reads,
                grid=None if grid is None else tuple(grid),
                notices=bool(found["notices"]),
                weights=self._weights,
            )
        except UNREADABLE:
            return None

    def keep(self, backbone: Backbone, provenance: Mapping[str, Any]) -> Known:
        """What is known of a backbone that was loaded after this memory was made; remember it.

        It is not remembered if its files were touched meanwhile or just before, or if it reads
        others than those of a checkpoint.
        """
        inner, windowed = innermost(backbone), windowed_in(backbone)
        known = Known(
            key=store_key(backbone, provenance),
            provenance=provenance,
            spec=backbone.spec,
            reads=backbone.reads,
            grid=None if windowed is None else windowed.grid,
            notices=hasattr(inner, "noticed"),
            weights=self._weights or [],
            recorded=recorded_by(backbone),
        )
        # Of the inode too, as a copy may keep the time of its original.
        times = [time for *_, modified, changed, _ in known.weights for time in (modified, changed)]
        if (
            known.weights
            and isinstance(getattr(inner, "source", None), Checkpoint)
            and known.key == fingerprint(provenance)
            and settled(*times)
            and _weights(self.entry) == self._weights
            and self.recall() is None
        ):
            with contextlib.suppress(OSError):
                for stale in self._folder.glob("*.json"):  # notices of other facts
                    stale.unlink(missing_ok=True)
            names = ("provenance", "reads", "grid", "notices")
            told = {name: getattr(known, name) for name in names}
            self._write(KNOWN, {"facts": self._facts, "spec": known.spec.to_dict(), **told})
        return known

    def notices(self, plan: Iterable[str]) -> dict[str, str] | None:
        """Notices by id of the utterances of a plan; None: the backbone has to be asked.

        Args:
            plan: Fingerprints of its shards, in order.
        """
        try:
            found = read_json(self._folder / self._notices_of(plan))
        except UNREADABLE:
            return None
        return found if all(isinstance(notice, str) for notice in found.values()) else None

    def keep_notices(self, plan: Iterable[str], noticed: Mapping[str, str]) -> None:
        """Remember the notices of a plan, of a backbone that is itself remembered."""
        if self.recall() is not None:
            self._write(self._notices_of(plan), noticed)

    def _notices_of(self, plan: Iterable[str]) -> str:
        return f"{_sha256(json.dumps([self._facts, *plan]))}.json"

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        # Where the store cannot be written, the network is loaded again next time.
        with contextlib.suppress(OSError), replacing(self._folder / name) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


def _weights(entry: BackboneEntry) -> list[Stamp] | None:
    """Status of the files of an entry's checkpoint; None if it has none, or runs code with it."""
    name, revision, package = (entry.options.get(k) for k in ("checkpoint", "revision", "package"))
    if name is None or entry.options.get("trust_remote_code"):
        return None
    return stamps(Checkpoint(str(name), revision, package)) or None


@functools.cache
def _code() -> str:
    """Hash of the sources of `features`, which holds all that a backbone is made of."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@functools.cache
def _installed() -> list[str]:
    """Python, and names and versions of all installed packages but this one."""
    # Not of sys.path, to which libraries add folders as they are imported.
    places = [*site.getsitepackages(), site.getusersitepackages()]
    places += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # The latter of packages that the system, or an older tool, installed.
    kinds = ("*.dist-info", "*.egg-info")
    found = {p.name for place in places if place for kind in kinds for p in Path(place).glob(kind)}
    return [sys.version, *sorted(name for name in found if not name.startswith("heronry"))]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
