"""File formats for features of varying length, and padded batches read from each.

All return the same `Stream`. The peers are used as their documentation shows: one array per
utterance, loaded by name, converted, padded by torch. `Gather` is the bound: the frames are in one
array in memory, and are copied by the loop that our own reader uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.cache.gather import empty, fill
from features.cache.reader import Access, CacheReader
from features.cache.shard import Row, shard_name
from features.cache.writer import CacheWriter
from features.stream import Stream, StreamSpec

Rows = dict[str, NDArray[np.float16]]
SHARD_BYTES = 64 << 20


@dataclass(frozen=True)
class Setup:
    """A synthetic cache.

    Attributes:
        utterances: How many.
        shortest: Frames of the shortest.
        longest: Frames of the longest.
        dim: Width D of a frame.
    """

    utterances: int
    shortest: int
    longest: int
    dim: int = 768

    def rows(self) -> Rows:
        """Random frames in float16, by id."""
        generator = np.random.default_rng(0)
        lengths = generator.integers(self.shortest, self.longest + 1, self.utterances)
        pool = generator.normal(size=(self.longest + 1999, self.dim)).astype(np.float16)
        starts = generator.integers(0, 2000, self.utterances)
        return {
            f"utterance-{i:06d}": pool[start : start + length]
            for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
        }


class Contender(Protocol):
    """Features on disk, or in memory, that can be asked for batches."""

    def batch(self, ids: Sequence[str], dtype: torch.dtype) -> Stream:
        """A padded batch."""

    def packed(self, ids: Sequence[str]) -> NDArray[np.float16]:
        """The frames of a batch end to end, as they are stored: reading, and nothing else."""


class PerUtterance:
    """Loads one array at a time."""

    def batch(self, ids: Sequence[str], dtype: torch.dtype) -> Stream:
        """A padded batch."""
        return Stream.pad([self.load(id).to(dtype) for id in ids])

    def packed(self, ids: Sequence[str]) -> NDArray[np.float16]:
        """The frames of a batch end to end."""
        return np.concatenate([self.load(id).numpy() for id in ids])

    def load(self, id: str) -> Tensor:
        """The frames of one utterance."""
        raise NotImplementedError


class Dataset(PerUtterance):
    """One HDF5 file with a dataset per utterance, kept open."""

    def __init__(self, folder: Path) -> None:
        self.file = h5py.File(folder / "features.h5", "r")

    def load(self, id: str) -> Tensor:
        """The frames of one utterance."""
        return torch.from_numpy(self.file[id][:])

    @staticmethod
    def write(folder: Path, rows: Rows) -> None:
        """Write all utterances."""
        with h5py.File(folder / "features.h5", "w") as file:
            for id, frames in rows.items():
                file.create_dataset(id, data=frames)


class Npy(PerUtterance):
    """One .npy file per utterance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, id: str) -> Tensor:
        """The frames of one utterance."""
        return torch.from_numpy(np.load(self.folder / f"{id}.npy"))

    @staticmethod
    def write(folder: Path, rows: Rows) -> None:
        """Write all utterances."""
        for id, frames in rows.items():
            np.save(folder / f"{id}.npy", frames)


class Pt(PerUtterance):
    """One .pt file per utterance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, id: str) -> Tensor:
        """The frames of one utterance."""
        loaded = torch.load(self.folder / f"{id}.pt", weights_only=True)
        assert isinstance(loaded, Tensor)
        return loaded

    @staticmethod
    def write(folder: Path, rows: Rows) -> None:
        """Write all utterances."""
        for id, frames in rows.items():
            torch.save(torch.from_numpy(frames), folder / f"{id}.pt")


class Safetensors(PerUtterance):
    """One .safetensors file per utterance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, id: str) -> Tensor:
        """The frames of one utterance."""
        return safetensors.torch.load_file(self.folder / f"{id}.safetensors")["frames"]

    @staticmethod
    def write(folder: Path, rows: Rows) -> None:
        """Write all utterances."""
        for id, frames in rows.items():
            tensors = {"frames": torch.from_numpy(frames)}
            safetensors.torch.save_file(tensors, folder / f"{id}.safetensors")


class Heronry:
    """Our shards."""

    def __init__(self, folder: Path, access: Access = "auto") -> None:
        self.reader = CacheReader(folder, access=access)

    def batch(self, ids: Sequence[str], dtype: torch.dtype) -> Stream:
        """A padded batch."""
        return self.reader.batch(ids, dtype=dtype)

    def packed(self, ids: Sequence[str]) -> NDArray[np.float16]:
        """The frames of a batch end to end."""
        return np.concatenate([self.reader[id] for id in ids])

    @staticmethod
    def write(folder: Path, rows: Rows) -> None:
        """Write all utterances, in shards of 64 MiB."""
        for number, shard in enumerate(shards(rows)):
            writer(rows).write(folder / shard_name(number), shard)


class Gather:
    """The bound: all frames in one array in memory, by the loops that our reader fills with."""

    def __init__(self, rows: Rows) -> None:
        self.frames = torch.from_numpy(np.concatenate(list(rows.values())))
        stops = np.cumsum([len(frames) for frames in rows.values()]).tolist()
        self.spans = dict(zip(rows, zip([0, *stops], stops, strict=False), strict=True))

    def batch(self, ids: Sequence[str], dtype: torch.dtype) -> Stream:
        """A padded batch."""
        rows = [self.frames[slice(*self.spans[id])] for id in ids]
        lengths = [len(row) for row in rows]
        values = empty((len(rows), max(lengths), self.frames.shape[1]), dtype)
        fill(rows, values)
        return Stream(values, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])

    def packed(self, ids: Sequence[str]) -> NDArray[np.float16]:
        """The frames of a batch end to end."""
        frames = self.frames.numpy()
        return np.concatenate([frames[slice(*self.spans[id])] for id in ids])


PEERS: dict[str, type[Dataset | Npy | Pt | Safetensors]] = {
    "hdf5_per_utterance": Dataset,
    "npy_per_utterance": Npy,
    "pt_per_utterance": Pt,
    "safetensors_per_utterance": Safetensors,
}


def writer(rows: Rows) -> CacheWriter:
    """What writes our shards of these rows."""
    width = next(iter(rows.values())).shape[1]
    return CacheWriter(spec=StreamSpec(width), provenance={}, dtype="float16")


def shards(rows: Rows) -> list[list[Row]]:
    """The rows, cut where a shard is full."""
    found: list[list[Row]] = [[]]
    size = 0
    for id, frames in rows.items():
        if size >= SHARD_BYTES:
            found.append([])
            size = 0
        found[-1].append(Row(id, f"content of {id}", frames))
        size += frames.nbytes
    return found
