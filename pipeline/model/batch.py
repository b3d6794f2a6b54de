"""Inputs and outputs of fusion models.

Shapes: B batch, T time, N turns, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from features.backbone.base import Inputs
from features.process.devices import moved
from features.stream import Stream


@dataclass(frozen=True)
class Batch:
    """Streams by slot of B utterances or B dialogues, with their labels.

    In a batch of dialogues the frames of a stream are turns, one vector each: `[B, N, D]`. A batch
    holds no speakers.

    Attributes:
        streams: Streams by slot (text, speech, nonverbal, prosody, spectral), if it is filled.
        labels: `[B]` class numbers, int64; for dialogues `[B, N]`, with -1 at turns that are
            padding or are not to be scored. None where they are not known.
        ids: Ids of the utterances; for dialogues of all turns that exist, dialogue after dialogue.
        inputs: Inputs by slot of backbones that are part of the model, with a row for each id. Only
            in end-to-end training, where these slots have no stream yet.
    """

    streams: Mapping[str, Stream]
    labels: Tensor | None = None
    ids: tuple[str, ...] = ()
    inputs: Mapping[str, Inputs] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        streams = {slot: stream.to(device) for slot, stream in self.streams.items()}
        labels = None if self.labels is None else moved(self.labels, device)
        inputs = {slot: given.to(device) for slot, given in self.inputs.items()}
        return replace(self, streams=streams, labels=labels, inputs=inputs)


@dataclass(frozen=True)
class Prediction:
    """Output of a model for a batch.

    Attributes:
        logits: `[B, K]`; for dialogues `[B, N, K]`.
        extras: Further tensors that the model's own loss needs, by name.
    """

    logits: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
