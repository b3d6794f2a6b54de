"""Cache folders: sealed shards in manifest order, written once and read by id.

Usage from a notebook:

    reader = CacheReader(Path("cache/demo/minilm"))
    frames = reader["some id"]  # [T, D], a view of the file: nothing is read until it is used
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import CacheError
from features.files import replacing
from features.records import REJECTED, read_rejected
from features.shard import Row, read_shard, write_shard
from features.stream import StreamSpec


class CacheWriter:
    """Writes one shard at a time, sealed: whole, flushed, read-only.

    Args:
        spec: What the rows are.
        provenance: Where they come from; goes into every shard.
        dtype: In which dtype they are stored: float16, float32 or int16.
    """

    def __init__(self, *, spec: StreamSpec, provenance: Mapping[str, Any], dtype: str) -> None:
        self.spec, self.provenance, self.dtype = spec, provenance, dtype

    def round(self, id: str, content: str, values: NDArray[Any]) -> Row:
        """A row in the stored dtype, with the error that rounding made.

        Raises:
            CacheError: If a value does not fit, such as one above 65,504 in float16.
        """
        stored = values.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise CacheError(
                f"utterance {id!r}: values up to {np.abs(values).max():.3g} do not fit "
                f"{self.dtype}; set `store_dtype: float32` for this backbone"
            )
        exact = values.astype(np.float64)
        rounding = float(np.abs(exact - stored).max()) if values.size else 0.0
        return Row(id, content, stored, rounding)

    def write(
        self, path: Path, rows: Sequence[Row], *, rejected: Mapping[str, str] | None = None
    ) -> None:
        """Write a shard that is there entirely or not at all."""
        with replacing(path) as temporary:
            write_shard(
                temporary,
                rows,
                spec=self.spec,
                provenance=self.provenance,
                dtype=self.dtype,
                rejected=rejected,
            )
            temporary.chmod(0o444)


class CacheReader(Mapping[str, NDArray[Any]]):
    """The rows of a cache folder by utterance id.

    Args:
        folder: `cache/<corpus>/<backbone>`.
        verify: Whether to read everything once and compare checksums.

    Raises:
        CacheError: If a shard is missing, damaged, foreign, or disagrees with the others.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        self.folder = folder
        self.shards = [read_shard(path) for path in sorted(folder.glob("*.h5"))]
        if not self.shards:
            raise CacheError(
                f"{folder} holds no shards; expected shard-00000.h5 ...: run `dvc repro` or "
                "`dvc pull`"
                + (f"; see {folder / REJECTED}" if (folder / REJECTED).exists() else "")
            )
        self._check_sequence()
        self._places = {
            id: (shard, index) for shard in self.shards for index, id in enumerate(shard.ids)
        }
        if len(self._places) != sum(len(shard.ids) for shard in self.shards):
            raise CacheError(
                f"{folder}: an utterance occurs in two shards; delete it and run `dvc repro`"
            )
        if verify:
            for shard in self.shards:
                shard.verify()

    @property
    def spec(self) -> StreamSpec:
        """What the rows are."""
        return self.shards[0].spec

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the rows come from."""
        return self.shards[0].provenance

    @property
    def rejected(self) -> dict[str, str]:
        """Reasons by id of the utterances that could not be extracted."""
        path = self.folder / REJECTED
        return read_rejected(path) if path.exists() else {}

    def __getitem__(self, id: str) -> NDArray[Any]:
        shard, index = self._places[id]
        return shard.frames[shard.offsets[index] : shard.offsets[index + 1]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def length(self, id: str) -> int:
        """Number of frames T of an utterance, without touching them."""
        shard, index = self._places[id]
        return int(shard.offsets[index + 1] - shard.offsets[index])

    def _check_sequence(self) -> None:
        for number, shard in enumerate(self.shards):
            expected = shard_name(number)
            if shard.path.name != expected:
                raise CacheError(
                    f"{self.folder} holds {shard.path.name} where {expected} was expected; "
                    "a shard is missing or foreign: run `dvc repro` or `dvc pull`"
                )
            first = self.shards[0]
            if (shard.spec, shard.provenance) != (first.spec, first.provenance):
                raise CacheError(
                    f"{shard.path} and {first.path.name} come from different backbones or "
                    "settings; delete the folder and run `dvc repro`"
                )


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:05d}.h5"
