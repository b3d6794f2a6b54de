"""Modules that are told how long each clip of a batch is, past the network above them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn


class ToldLengths(nn.Module):
    """Lengths are state of the module, since the network above it cannot hand them down.

    One network therefore computes one batch at a time.
    """

    lengths: Tensor | None = None

    @contextlib.contextmanager
    def told(self, lengths: Tensor) -> Iterator[None]:
        """Within this context, `lengths[i]` of what clip i's row holds exists, `[B]`; then padding.

        Counted is what the module takes: samples, or frames.
        """
        self.lengths = lengths
        try:
            yield
        finally:
            self.lengths = None
