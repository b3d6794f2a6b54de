"""What fusion models take and give.

Legend: B batch, T time, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from features.stream import Stream


@dataclass(frozen=True)
class Batch:
    """Streams of B utterances by slot, with their labels.

    Attributes:
        streams: By slot: text, speech, nonverbal, prosody, spectral; only those that are filled.
        labels: `[B]` class numbers, or None where they are not known.
        ids: The utterances.
    """

    streams: Mapping[str, Stream]
    labels: Tensor | None = None
    ids: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        streams = {slot: stream.to(device) for slot, stream in self.streams.items()}
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return type(self)(streams, labels, self.ids)


@dataclass(frozen=True)
class Prediction:
    """What a model says about a batch.

    Attributes:
        logits: `[B, K]`.
        extras: Whatever else the model's own loss needs, by name.
    """

    logits: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
