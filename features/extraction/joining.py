"""Joins the windows of long recordings to rows, in memory that does not grow with their length.

Frames go to a temporary file as they come, rounded; a vector over time comes from running sums.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from features.backbone.base import Backbone, Pooled
from features.backbone.windows import Window, windowed_in
from features.cache.shard import Row, SpooledRow
from features.cache.writer import CacheWriter, Spool


class Moments:
    """Statistics of frames `[T, D]` that come in parts, in double precision.

    Mean and squared deviations are updated as by Chan, Golub and LeVeque 1983: the difference of
    two large sums would lose its digits.
    """

    def __init__(self, frames: Tensor) -> None:
        self._first, self._count = frames[:1].double().clone(), 0
        self._mean = torch.zeros_like(self._first)
        self._squares = torch.zeros_like(self._first)
        self.add(frames)

    def add(self, frames: Tensor) -> None:
        """Take in further frames."""
        given, count = frames.double(), len(frames)
        if not count:
            return
        mean, before = given.mean(0, keepdim=True), self._count
        self._count += count
        difference = mean - self._mean
        self._mean += difference * (count / self._count)
        self._squares += (given - mean).square().sum(0, keepdim=True)
        self._squares += difference.square() * (before * count / self._count)

    def mean(self) -> Tensor:
        """Mean, `[1, D]`."""
        return self._mean

    def std(self) -> Tensor:
        """Population standard deviation, `[1, D]`."""
        return (self._squares / max(1, self._count)).sqrt()

    def first(self) -> Tensor:
        """The first frame, `[1, D]`."""
        return self._first


class Joiner:
    """Joins windows to rows of one shard; those of a recording come one after the other.

    Args:
        backbone: Backbone with windows.
        writer: Rounds frames.
        folder: Folder for the temporary file.
    """

    def __init__(self, backbone: Backbone, writer: CacheWriter, folder: Path) -> None:
        windowed = windowed_in(backbone)
        assert windowed is not None
        self.windowed, self.writer, self.folder = windowed, writer, folder
        self.pooled = backbone if isinstance(backbone, Pooled) else None
        self._spool: Spool | None = None  # one for all recordings: a process has few descriptors
        self._begin, self._rounding = 0, 0.0
        self._moments: Moments | None = None

    def add(self, window: Window, content: str, frames: Tensor) -> Row | SpooledRow | None:
        """Take in the frames `[T, D]` or bins `[T]` of a window; the row, if it is the last.

        Raises:
            CacheError: If a value does not fit the stored dtype.
        """
        kept = self.windowed.kept(window, frames)
        if self.pooled is None:
            return self._spooled(window, content, kept)
        if self._moments is None or window.part[0] == 0:
            self._moments = Moments(kept)
        else:
            self._moments.add(kept)
        if not window.last:
            return None
        vector = self.pooled.vector(self._moments).float()
        return self.writer.round(window.id, content, vector.numpy())

    def _spooled(self, window: Window, content: str, frames: Tensor) -> SpooledRow | None:
        if self._spool is None:
            self._spool = Spool(self.folder)
        if window.part[0] == 0:
            self._begin, self._rounding = self._spool.bytes, 0.0
        row = self.writer.round(window.id, content, frames.numpy())
        self._spool.append(row.frames)
        self._rounding = max(self._rounding, row.rounding)
        if not window.last:
            return None
        stored = self._spool.since(self._begin, self.writer.dtype, row.frames.shape[1:])
        return SpooledRow(window.id, content, stored, self._rounding)
