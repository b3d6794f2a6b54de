"""Reads a cache folder by utterance id: rows as arrays, batches as padded tensors.

Usage from a notebook:

    reader = CacheReader(Path("cache/demo/minilm"))
    frames = reader["some id"]  # [T, D], a view of the file, read when it is used
    stream = reader.batch(["some id", "another"])  # [2, T, D], padded, with its mask
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from features.cache.frames import Extent
from features.cache.index import ExtentIndex
from features.cache.members import MEMBERS, prefixes
from features.cache.shard import DEVIATION, Shard, read_shard, settings_of, shard_name
from features.errors import CacheError
from features.files.reasons import NOTICED, REJECTED, read_reasons, reasons_line
from features.process.memory import available_bytes
from features.stream import Stream, StreamSpec

if TYPE_CHECKING:
    import torch

Access = Literal["auto", "map", "read"]
MAPPED_PART = 0.5  # share of the available memory that a mapped cache may take (docs/format.md)


class CacheReader(Mapping[str, NDArray[Any]]):
    """Rows of a cache folder by utterance id.

    It keeps no file open, and may be sent to other processes.

    Args:
        folder: `cache/<corpus>/<backbone>`.
        verify: Whether to read everything once and compare checksums.
        access: `map` gives views of the files' pages: nothing is copied, and all processes share
            one copy. `read` copies rows when they are asked for, those of a batch together, which
            is many times faster for a cache that does not fit into memory. `auto` maps a cache of
            at most half the available memory.

    Attributes:
        access: `map` or `read`.
        columns: Columns of a frame that are read; None: all.

    Raises:
        CacheError: If a shard is missing, damaged, foreign, or disagrees with the others.
    """

    def __init__(self, folder: Path, *, verify: bool = False, access: Access = "auto") -> None:
        self.folder = folder
        self.columns: slice | None = None
        self.shards = list(shards_of(folder))
        self._extents: Mapping[str, Extent] = {
            id: Extent(shard.stored, first, last)
            for shard in self.shards
            for id, (first, last) in zip(
                shard.named, pairwise(shard.offsets.tolist()), strict=False
            )
        }
        if len(self._extents) != sum(len(shard.ids) for shard in self.shards):
            raise CacheError(
                f"{folder}: an utterance occurs in two shards; delete it and run `dvc repro`"
            )
        size = sum(shard.stored.bytes for shard in self.shards)
        fits = access == "auto" and size <= MAPPED_PART * available_bytes()
        self.access: Literal["map", "read"] = "map" if fits or access == "map" else "read"
        if verify:
            for shard in self.shards:
                shard.verify()

    @property
    def spec(self) -> StreamSpec:
        """Width and kind of the rows."""
        spec = self.shards[0].spec
        return spec if self.columns is None else replace(spec, dim=self._width, layers=1)

    @property
    def _width(self) -> int:
        spec = self.shards[0].spec
        return spec.dim // spec.layers

    def one_layer(self, place: int) -> Self:
        """The same cache, of whose stacks of hidden states one is read; nothing is copied.

        Args:
            place: Number of the state in the stack, from 0.
        """
        assert 0 <= place < self.shards[0].spec.layers
        view = copy.copy(self)
        view.columns = slice(place * self._width, (place + 1) * self._width)
        return view

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Backbone and settings of the rows, with the largest measured deviation of all shards."""
        deviations = [s.provenance[DEVIATION] for s in self.shards if DEVIATION in s.provenance]
        largest = {DEVIATION: max(deviations)} if deviations else {}
        return {**self.shards[0].provenance, **largest}

    @property
    def rejected(self) -> dict[str, str]:
        """Reasons by id of utterances that could not be extracted."""
        return _reasons(self.folder, REJECTED)

    @property
    def noticed(self) -> dict[str, str]:
        """Notices by id of utterances of which a part was left out."""
        return _reasons(self.folder, NOTICED)

    def __getitem__(self, id: str) -> NDArray[Any]:
        extent = self._extents[id]
        stored, first, last = extent
        columns = (slice(None),) if self.columns is None else (slice(None), self.columns)
        if self.access == "map":
            return stored.array[first:last][columns]
        row = np.empty((extent.length, *stored.shape[1:]), stored.dtype)
        with stored.open() as file:
            stored.read(file, first, row)
        row.flags.writeable = False
        return row[columns]

    def __iter__(self) -> Iterator[str]:
        return iter(self._extents)

    def __len__(self) -> int:
        return len(self._extents)

    def length(self, id: str) -> int:
        """Number of frames T of an utterance, without touching them."""
        return self._extents[id].length

    def lengths(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """`length` of several utterances."""
        if isinstance(self._extents, ExtentIndex):
            return self._extents.lengths(ids)
        return np.array([self._extents[id].length for id in ids], np.int64)

    def compact(self, folder: Path) -> Self:
        """The same rows, found by arrays that processes share; its shards have no ids and contents.

        Args:
            folder: Folder to write the arrays to.
        """
        view, none = copy.copy(self), np.empty(0, np.int64)
        view._extents = ExtentIndex.write(folder, self._extents)
        view.shards = [
            replace(
                shard,
                ids=(),
                contents=(),
                offsets=none,
                crc32=none.astype(np.uint32),
                rounding=none.astype(np.float64),
            )
            for shard in self.shards
        ]
        return view

    def batch(self, ids: Sequence[str], *, dtype: torch.dtype | None = None) -> Stream:
        """A batch of utterances, padded with zeros.

        Args:
            ids: B utterances, in the order of the result.
            dtype: Type of the values; by default float32, and int64 for bins.

        Returns:
            Values `[B, T, D]` (bins: `[B, T]`) and mask `[B, T]`; T is the longest's.
        """
        # Imported here, so that programs that read rows as arrays do not wait for torch.
        import torch

        from features.cache.gather import gather

        kind = dtype or (torch.float32 if self.spec.bins is None else torch.int64)
        index = self._extents
        extents = index.many(ids) if isinstance(index, ExtentIndex) else [index[id] for id in ids]
        width = self.shards[0].stored.shape[1:]
        if self.columns is not None:
            width = (self._width,)
        return gather(extents, width, kind, mapped=self.access == "map", columns=self.columns)


def shards_of(folder: Path) -> Iterator[Shard]:
    """Shards of a cache in order, read one at a time; those of a union with their prefixes.

    Raises:
        CacheError: If there is none, or one is missing, damaged, foreign, or of another backbone
            than the first.
    """
    # By length first: from number 100000 on, names have a sixth digit.
    paths = sorted(folder.glob("*.h5"), key=lambda path: (len(path.name), path.name))
    if not paths:
        rejected = _reasons(folder, REJECTED)
        if rejected:
            raise CacheError(f"{folder} holds no features: {no_features(rejected)}")
        raise CacheError(
            f"{folder} holds no shards; expected shard-00000.h5 ...: run `dvc repro` or `dvc pull`"
        )
    named = prefixes(folder)
    if named is not None and len(named) != len(paths):
        raise CacheError(
            f"{folder} holds {len(paths)} shards; expected the {len(named)} that "
            f"{MEMBERS} names: run `dvc repro` or `dvc pull`"
        )
    first: Shard | None = None
    for number, path in enumerate(paths):
        expected = shard_name(number)
        if path.name != expected:
            raise CacheError(
                f"{folder} holds {path.name} where {expected} was expected; "
                "a shard is missing or foreign: run `dvc repro` or `dvc pull`"
            )
        shard = read_shard(path)
        first = first or shard
        same = settings_of(shard.provenance) == settings_of(first.provenance)
        if shard.spec != first.spec or not same:
            raise CacheError(
                f"{path} and {first.path.name} come from different backbones or "
                "settings; delete the folder and run `dvc repro`"
            )
        yield shard if named is None else replace(shard, prefix=named[number])


def no_features(rejected: Mapping[str, str]) -> str:
    """Message about a cache without features, since every utterance was rejected."""
    reasons = reasons_line(rejected.values())
    return (
        f"all {len(rejected)} utterances were rejected: {reasons}; expected "
        "some with features: correct the corpus and run `dvc repro`, or give the slot a backbone "
        "that reads what the corpus has, or `none`"
    )


def _reasons(folder: Path, name: str) -> dict[str, str]:
    path = folder / name  # older releases wrote no list where nothing stood in it
    return read_reasons(path) if path.exists() else {}
