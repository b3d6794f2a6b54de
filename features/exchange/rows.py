"""Checks rank, dtype and values of an imported array, and converts it to frames of a cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.frames import raw
from features.errors import CacheError

Array = NDArray[Any]
SAME = 0.01  # relative difference that batches and devices may cause


@dataclass(frozen=True)
class RowFacts:
    """Facts about an array that are kept after it was checked.

    Attributes:
        width: Width D of its frames; 1 for bins.
        frames: Number of frames T.
        half: Whether its values are float16.
        sha256: Hash of dtype, shape and values.
    """

    width: int
    frames: int
    half: bool
    sha256: str

    @classmethod
    def of(cls, row: Array) -> RowFacts:
        """Facts about an array that `as_row` returned."""
        digest = hashlib.sha256(f"{row.dtype.str}{row.shape}".encode())
        digest.update(raw(row))
        width = row.shape[1] if row.ndim == 2 else 1
        return cls(width, len(row), row.dtype == np.float16, digest.hexdigest())


def as_row(array: Array, bins: int | None) -> Array:
    """An array as frames `[T, D]` in float16 or float32, or as bins `[T]` in int16.

    A vector `[D]` is one frame, and a first axis of length 1 (a batch of one) is removed.

    Args:
        array: Array as it was read.
        bins: Number of values of a bin; None: frames are real-valued.

    Raises:
        CacheError: If its rank, dtype or values are not as expected.
    """
    row = _bins(array, bins) if bins is not None else _frames(array)
    if not row.size:
        raise CacheError(f"has the shape {array.shape}; expected at least one frame")
    return np.ascontiguousarray(row)


def differ(first: Array, second: Array) -> bool:
    """Whether two arrays differ by more than rounding."""
    if first.shape != second.shape:
        return True
    left, right = first.astype(np.float64), second.astype(np.float64)
    largest = max(float(np.abs(left).max()), 1e-30)
    return float(np.abs(left - right).max()) > SAME * largest


def _frames(array: Array) -> Array:
    if array.dtype.kind != "f":
        raise CacheError(
            f"is {array.dtype}; expected float16, float32 or float64 (of integer bins, give --bins)"
        )
    shape = array.shape
    if array.ndim == 3 and shape[0] == 1:
        array = array[0]
    if array.ndim not in (1, 2):
        raise CacheError(f"has the shape {shape}; expected frames [T, D] or one vector [D]")
    row = array[None] if array.ndim == 1 else array
    if not np.isfinite(row).all():
        raise CacheError("holds values that are not finite")
    if row.dtype in (np.float16, np.float32):
        return row
    # An overflow is reported below, with the value.
    with np.errstate(over="ignore"):
        single = row.astype(np.float32)
    if not np.isfinite(single).all():
        raise CacheError(f"holds values up to {np.abs(row).max():.3g}, beyond float32")
    return single


def _bins(array: Array, bins: int) -> Array:
    if array.dtype.kind not in "iu":
        raise CacheError(f"is {array.dtype}; expected integers, as --bins is given")
    # [1, T] or [T, 1].
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise CacheError(f"has the shape {array.shape}; expected bins [T]")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < bins:
        raise CacheError(f"holds bins {array.min()} to {array.max()}; expected 0 to {bins - 1}")
    return array.astype(np.int16)
