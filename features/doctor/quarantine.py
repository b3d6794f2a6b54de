"""Moves damaged shards out of the way, so that the next `dvc repro` makes these again.

A shard is often one file under three names: in the cache folder, in DVC's cache and in the work
store. Damage to one is damage to all, and DVC would restore its own copy unchecked (its lock file
names that hash as the stage's output), so copies of damaged bytes are removed from all three. The
bytes are kept in cache/.quarantine/<corpus>/<backbone>/. A foreign file is moved and nothing else:
its copies may be somebody's data.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from features.backbone.entry import fingerprint
from features.cache.shard import read_shard
from features.corpus.manifest import Manifest
from features.doctor.folder import CacheFacts, reads_of, sizes_of
from features.doctor.shards import NAME, ShardFacts, check_shard, shard_number
from features.errors import CacheError, DamagedShardError
from features.extraction.plan import plan_shards
from features.extraction.store import WorkStore
from features.files.reading import file_sha256
from features.files.writing import link_or_copy

FOLDER = ".quarantine"
MENDED = ("quarantine", "move")  # remedies of the faults that `quarantine` removes


@dataclass(frozen=True)
class BadFile:
    """Identity of a file: its place on the disk and its bytes."""

    inode: tuple[int, int]
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> BadFile:
        """Identify a file; a symbolic link counts as its target."""
        status = path.stat()
        return cls((status.st_dev, status.st_ino), status.st_size, file_sha256(path))

    def is_at(self, path: Path) -> bool:
        """Whether `path` is the same file or holds the same bytes (an empty file is no copy)."""
        status = path.stat()
        if (status.st_dev, status.st_ino) == self.inode:
            return True
        # The size first: hashing everything in DVC's cache would take hours.
        return status.st_size == self.bytes > 0 and file_sha256(path) == self.sha256


def quarantine(
    cache: CacheFacts, manifest: Manifest | None, *, store: Path, objects: Path | None
) -> Iterator[str]:
    """Move the bad files of a cache folder away, remove their copies, and yield a line each step.

    Args:
        cache: Folder, as `check_cache` found it.
        manifest: Manifest of the corpus, by which rows of a bad shard are recognised in the store.
        store: Root of the work store.
        objects: DVC's cache folder, if there is one.

    Raises:
        CacheError: If a file can neither be moved nor removed.
    """
    for path, remedy in {f.path: f.remedy for f in cache.faults}.items():
        if remedy not in MENDED:
            continue
        try:
            copies: list[Path] = []
            if remedy == "quarantine":
                bad = BadFile.of(path)
                copies += _in_dvc(bad, objects)
                copies += _in_store(bad, path, cache, manifest, store)
            target = _keep(path)
            # Copies go first: if this is interrupted, the next repair still finds the bad file.
            for copy in copies:
                copy.unlink(missing_ok=True)
                yield f"removed {copy}, which holds the same damage"
            _remove(path)
            yield f"moved {path} to {target}"
        except OSError as error:
            raise CacheError(
                f"{path} cannot be put into quarantine ({error}); check who owns it and its "
                "folder, then repair again"
            ) from error


def dvc_objects(project: Path) -> Path | None:
    """DVC's cache folder of a project; None for a project without DVC."""
    if not (project / ".dvc").is_dir():
        return None
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _keep(path: Path) -> Path:
    """Link or copy `path` into the quarantine, under a name that is free there."""
    backbone = path.parent.absolute()
    folder = backbone.parent.parent / FOLDER / backbone.parent.name / backbone.name
    folder.mkdir(parents=True, exist_ok=True)
    target, times = folder / path.name, 1
    while target.exists():
        times += 1
        target = folder / f"{path.stem}-{times}{path.suffix}"
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        link_or_copy(path.resolve(), target)  # a link to a symbolic link would dangle
    return target


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _in_dvc(bad: BadFile, objects: Path | None) -> list[Path]:
    if objects is None:
        return []
    files = sorted((objects / "files" / "md5").glob("??/*"))
    return [path for path in files if bad.is_at(path)]


def _in_store(
    bad: BadFile, path: Path, cache: CacheFacts, manifest: Manifest | None, store: Path
) -> Iterator[Path]:
    """Shards of the store with the same bytes, and damaged ones with rows of the bad shard."""
    contents = _contents(path, cache, manifest)
    for candidate in _stored(cache, store):
        if bad.is_at(candidate) or (
            _may_hold(candidate, contents) and not isinstance(check_shard(candidate), ShardFacts)
        ):
            yield candidate


def _stored(cache: CacheFacts, store: Path) -> Iterable[Path]:
    """Shards of the store under the same backbone, or under all if no sound shard names it."""
    if not cache.shards:
        return sorted(store.glob("*/*.h5"))
    own = WorkStore(store, fingerprint(cache.shards[0].provenance))
    return sorted(own.path("any").parent.glob("*.h5"))


def _contents(path: Path, cache: CacheFacts, manifest: Manifest | None) -> set[str]:
    """Content hashes of the rows that belong to the shard at `path`."""
    if manifest is None or not NAME.fullmatch(path.name):
        return set()
    reads = reads_of(cache, manifest)
    # As it is cut now, and as an older release cut it: without looking at bytes.
    plans = (plan_shards(manifest, reads, sizes) for sizes in (sizes_of(cache, reads), None))
    numbered = (p for plan in plans for p in plan if p.number == shard_number(path))
    return {content for planned in numbered for content in planned.contents}


def _may_hold(path: Path, contents: set[str]) -> bool:
    try:
        return not contents.isdisjoint(read_shard(path).contents)
    except DamagedShardError:
        return True
    except CacheError:
        return False
