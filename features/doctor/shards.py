"""Lists the faults of one shard: of its structure, its checksum and its values.

Frames are read in blocks; only ids, content hashes and lengths stay in memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from features.arguments import counted
from features.cache.guard import DATASETS, dataset, read_attributes
from features.cache.shard import (
    ADVICE,
    FORMAT,
    VERSION,
    Shard,
    read_shard,
    settings_of,
    shard_name,
)
from features.errors import CacheError, DamagedShardError
from features.files.reading import check_regular
from features.process.workers import WorkerPool
from features.stream import StreamSpec

BLOCK_VALUES = 1 << 22  # values checked at once, 16 MiB of float32
OPEN_SECONDS = 60.0  # opening takes milliseconds on a disk and seconds on a slow network
NAME = re.compile(r"shard-(\d{5,})\.h5")
Remedy = Literal["quarantine", "move", "extract", "own"]


@dataclass(frozen=True)
class Fault:
    """Something wrong with a cache.

    Attributes:
        path: File or folder.
        text: Description of the fault.
        remedy: `quarantine`: the file is damaged; it and all its copies must be moved away before
            it can be made again. `move`: the file does not belong here. `extract`: the file is
            intact, but out of date. `own`: the text says what to do.
    """

    path: Path
    text: str
    remedy: Remedy = "extract"


@dataclass(frozen=True)
class ShardFacts:
    """Facts about a sound shard that are kept after its frames were checked.

    Attributes:
        path: File.
        bytes: Size of the file.
        ids: Ids of the N utterances, in order.
        contents: Content hash of each.
        lengths: `[N]` number of frames of each.
        spec: Width and kind of the frames.
        dtype: Stored dtype.
        provenance: Backbone and settings, without what was measured in this shard alone.
        rejected: Reasons by id of utterances of this shard that could not be computed.
    """

    path: Path
    bytes: int
    ids: tuple[str, ...]
    contents: tuple[str, ...]
    lengths: NDArray[np.int64]
    spec: StreamSpec
    dtype: str
    provenance: Mapping[str, Any]
    rejected: Mapping[str, str]

    @property
    def number(self) -> int:
        """Position in the folder."""
        return shard_number(self.path)


def check_shard(path: Path) -> ShardFacts | list[Fault]:
    """Read a whole shard: facts about a sound one, or the faults of any other."""
    try:
        shard = read_shard(path)
    except DamagedShardError as error:
        return [Fault(path, _plain(error, path), "quarantine")]
    except CacheError as error:
        return [Fault(path, _plain(error, path), _remedy(path))]
    try:
        wrong = [*_damage(shard), *_value_faults(shard)]
    except DamagedShardError as error:
        wrong = [_plain(error, path)]
    except CacheError as error:  # the disk fails, or the file was replaced just now
        return [Fault(path, _plain(error, path), "own")]
    if wrong:
        return [Fault(path, text, "quarantine") for text in wrong]
    return ShardFacts(
        path=path,
        bytes=path.stat().st_size,
        ids=shard.ids,
        contents=shard.contents,
        lengths=np.diff(shard.offsets),
        spec=shard.spec,
        dtype=shard.stored.dtype.name,
        provenance=settings_of(shard.provenance),
        rejected=shard.rejected,
    )


def shard_number(path: Path) -> int:
    """The number in the name of a shard.

    >>> shard_number(Path("cache/demo/tone/shard-00012.h5"))
    12
    """
    match = NAME.fullmatch(path.name)
    if match is None:
        raise CacheError(f"{path} is no shard; expected a name such as {shard_name(0)}")
    return int(match[1])


def unopenable(paths: Sequence[Path]) -> set[Path]:
    """Those of `paths` on which HDF5 crashes or hangs, found by opening them in another process.

    A single wrong byte can do that: text attributes lie in HDF5's global heap, which has no
    checksum, and the library follows the lengths in there (one such byte kept HDF5 1.14 busy for
    ever).
    """
    bad: set[Path] = set()
    left = list(paths)
    while left:
        with WorkerPool(1, _silence) as pool:
            pool.submit(os.getpid).result()  # if no worker can start, it is not the file's fault
            try:
                while left:
                    pool.submit(_open, left[0], OPEN_SECONDS).result()
                    del left[0]
            except BrokenProcessPool:
                bad.add(left.pop(0))
    return bad


def _silence() -> None:
    """Discard what the C library prints when HDF5 has damaged the memory of this process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _open(path: Path, seconds: float) -> None:
    """Have HDF5 read all that `read_shard` and `check_shard` have it read: all but frames."""
    # The alarm ends the process whatever HDF5 does; a thread would wait for Python's lock.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Errors are not crashes: `check_shard` meets them again and reports them.
    with contextlib.suppress(Exception):
        check_regular(path)
        size = path.stat().st_size
        with h5py.File(path, "r", locking=False) as file:
            with contextlib.suppress(Exception):
                read_attributes(file, size)
            for name in DATASETS:
                with contextlib.suppress(Exception):
                    found = dataset(file, name, size)
                    if name != "frames":
                        found[:]
            list(file)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _damage(shard: Shard) -> Iterator[str]:
    try:
        shard.verify()
    except DamagedShardError as error:
        yield _plain(error, shard.path)


def _value_faults(shard: Shard) -> Iterator[str]:
    """Report values that no backbone may give: not finite, or outside the bins."""
    bins, frames = shard.spec.bins, shard.stored
    total, *width = frames.shape
    step = max(1, BLOCK_VALUES // max(1, *width, 1))
    bad: set[int] = set()
    with frames.open() as file:
        for start in range(0, total, step):
            block = np.empty((min(step, total - start), *width), frames.dtype)
            frames.read(file, start, block)
            wrong = ~np.isfinite(block).all(1) if bins is None else (block < 0) | (block >= bins)
            places = start + np.flatnonzero(wrong)
            bad |= set((np.searchsorted(shard.offsets, places, side="right") - 1).tolist())
    if bad:
        what = "not finite" if bins is None else f"outside 0..{bins - 1}"
        yield f"values are {what} in utterances: {counted(shard.ids[i] for i in sorted(bad))}"


def _plain(error: CacheError, path: Path) -> str:
    """The message without path and general advice, which `pipeline doctor` prints itself."""
    text = str(error).replace(ADVICE.format(name=path.name), "")
    return text.removeprefix(str(path)).lstrip(" :").rstrip(" :;")


def _remedy(path: Path) -> Remedy:
    """Remedy for a file that is not marked as a shard, or that cannot be opened."""
    try:
        check_regular(path)
        with h5py.File(path, "r", locking=False) as file:
            if (
                file.attrs.get("format") in (FORMAT, FORMAT.encode())
                and file.attrs.get("version") != VERSION
            ):
                return "own"
            # A file with all datasets of a shard is one whose attribute `format` was damaged.
            return "quarantine" if set(file) >= set(DATASETS) else "move"
    except (OSError, RuntimeError):
        return "own"
