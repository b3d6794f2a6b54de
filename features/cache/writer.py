"""Writes a cache folder: sealed shards in manifest order, each written once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.cache.shard import DEVIATION, Row, write_shard
from features.errors import CacheError
from features.files.writing import replacing, seal
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
        given = torch.from_numpy(np.ascontiguousarray(values))
        stored = given.to(getattr(torch, self.dtype))  # torch rounds many times faster than numpy
        difference = (given - stored).abs().max().item() if values.size else 0.0
        if not math.isfinite(difference) or (not given.is_floating_point() and difference):
            raise CacheError(
                f"utterance {id!r}: values up to {np.abs(values).max():.3g} do not fit "
                f"{self.dtype}; set `store_dtype: float32` for this backbone"
            )
        return Row(id, content, stored.numpy(), float(difference))

    def write(
        self,
        path: Path,
        rows: Sequence[Row],
        *,
        rejected: Mapping[str, str] | None = None,
        deviation: float | None = None,
    ) -> None:
        """Write a shard that is there entirely or not at all.

        Args:
            path: Where.
            rows: Its utterances, in order.
            rejected: Reasons by id of those that belong here and could not be computed.
            deviation: What a reduced `compute_dtype` changed in this shard, relative to the largest
                value; recorded in its provenance.
        """
        measured = {} if deviation is None else {DEVIATION: deviation}
        with replacing(path) as temporary:
            write_shard(
                temporary,
                rows,
                spec=self.spec,
                provenance={**self.provenance, **measured},
                dtype=self.dtype,
                rejected=rejected,
            )
            seal(temporary)
