"""What is wrong with one shard: everything, where `read_shard` stops at the first.

Frames are looked at in blocks; what stays in memory are ids, content hashes and lengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from features.cache.guard import DATASETS
from features.cache.shard import (
    ADVICE,
    DEVIATION,
    FORMAT,
    VERSION,
    Shard,
    read_shard,
    shard_name,
    structure_faults,
)
from features.errors import CacheError, DamagedShardError
from features.files.reading import check_regular
from features.stream import StreamSpec

BLOCK_VALUES = 1 << 22  # values looked at together, 16 MiB of float32
NAME = re.compile(r"shard-(\d{5,})\.h5")
Remedy = Literal["quarantine", "move", "extract", "own"]


@dataclass(frozen=True)
class Fault:
    """Something wrong with a cache.

    Attributes:
        path: The file or folder.
        text: What is wrong with it.
        remedy: `quarantine`: the file is damaged and must go, with all copies of it, before it can
            be made again; `move`: it is somebody else's and must go from here; `extract`: what is
            there is whole, but not what it should be; `own`: the text says what to do.
    """

    path: Path
    text: str
    remedy: Remedy = "extract"


@dataclass(frozen=True)
class ShardFacts:
    """What is kept of a sound shard once its frames were looked at.

    Attributes:
        path: The file.
        bytes: Its size.
        ids: Utterances in order, N of them.
        contents: Content hash of each.
        lengths: `[N]` frames of each.
        spec: What the frames are.
        provenance: Where they come from, without what was measured in this shard alone.
        rejected: Reason by id of those that belong here and could not be computed.
    """

    path: Path
    bytes: int
    ids: tuple[str, ...]
    contents: tuple[str, ...]
    lengths: NDArray[np.int64]
    spec: StreamSpec
    provenance: Mapping[str, Any]
    rejected: Mapping[str, str]

    @property
    def number(self) -> int:
        """Its place in the folder."""
        return shard_number(self.path)


def check_shard(path: Path) -> ShardFacts | list[Fault]:
    """Read a whole shard: what is known of it if it is sound, else what is wrong with it."""
    try:
        shard = read_shard(path)
    except DamagedShardError as error:
        return [Fault(path, _plain(error, path), "quarantine")]
    except CacheError as error:
        return [Fault(path, _plain(error, path), _remedy(path))]
    try:
        wrong = list(structure_faults(shard)) or [*_damage(shard), *_value_faults(shard)]
    except DamagedShardError as error:
        wrong = [_plain(error, path)]
    except CacheError as error:  # of the disk, or the file was replaced just now
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
        provenance={k: v for k, v in shard.provenance.items() if k != DEVIATION},
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


def named(ids: Iterable[str]) -> str:
    """How many there are and the first five of them, for a message.

    >>> named(["a", "b"])
    "2 ('a', 'b')"
    """
    found = list(ids)
    return f"{len(found)} ({', '.join(map(repr, found[:5]))}{', …' if len(found) > 5 else ''})"


def _damage(shard: Shard) -> Iterator[str]:
    try:
        shard.verify()
    except DamagedShardError as error:
        yield _plain(error, shard.path)


def _value_faults(shard: Shard) -> Iterator[str]:
    """Values that no backbone may give: not finite, or beyond the bins."""
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
        yield f"values are {what} in utterances: {named(shard.ids[i] for i in sorted(bad))}"


def _plain(error: CacheError, path: Path) -> str:
    """The message without the path and the general advice, which stand beside it anyway."""
    text = str(error).replace(ADVICE.format(name=path.name), "")
    return text.removeprefix(str(path)).lstrip(" :").rstrip(" :;")


def _remedy(path: Path) -> Remedy:
    """What to do about a file that says that it is no shard, or that cannot be opened."""
    try:
        check_regular(path)
        with h5py.File(path, "r", locking=False) as file:
            if (
                file.attrs.get("format") in (FORMAT, FORMAT.encode())
                and file.attrs.get("version") != VERSION
            ):
                return "own"
            # With all our datasets in it, it is ours, and the word `format` itself is damaged.
            return "quarantine" if set(file) >= set(DATASETS) else "move"
    except (OSError, RuntimeError):
        return "own"
