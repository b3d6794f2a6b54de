"""Writes the shards of a cache folder, each sealed: complete, flushed to disk, read-only."""

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
    """Rounds rows to the stored dtype and writes shards.

    Args:
        spec: Width and kind of the rows.
        provenance: Backbone and settings that computed the rows; written into every shard.
        dtype: Stored dtype: float16, float32 or int16.
    """

    def __init__(self, *, spec: StreamSpec, provenance: Mapping[str, Any], dtype: str) -> None:
        self.spec, self.provenance, self.dtype = spec, provenance, dtype

    def round(self, id: str, content: str, values: NDArray[Any]) -> Row:
        """A row in the stored dtype, with its rounding error.

        Raises:
            CacheError: If a value does not fit, such as one above 65,504 in float16.
        """
        given = torch.from_numpy(np.ascontiguousarray(values))
        stored = given.to(getattr(torch, self.dtype))  # torch rounds many times faster than numpy
        difference = (given - stored).abs().max().item() if values.size else 0.0
        # Overflow and NaN make the difference infinite or NaN; bins must not change at all.
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
        """Write a shard; if that is interrupted, no file of its name exists.

        Args:
            path: File of the shard.
            rows: Utterances of the shard, in order.
            rejected: Reasons by id of utterances of this shard that could not be computed.
            deviation: Largest change by a reduced `compute_dtype`, relative to the largest value;
                recorded in the provenance.
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
