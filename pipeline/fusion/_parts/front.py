"""Projections of `transformer`, `bigru_cross` and `hcam`, and the base of the last two.

The MDAT paper's code (arXiv 2506.02088) projects speech and text frame by frame and fuses them.
F0 bins are averaged after their projection, a spectral vector (CED's) passes two layers, and both
by-pass the fusion. The classifier takes all vectors side by side: speech | text | prosody |
spectral.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from features.errors import ParamsError
from features.ranges import Heads, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.fusion._parts.layers import (
    CLASSIFIER_NAMES,
    AttentivePool,
    BiGRU,
    ClassifierKind,
    ClipBranch,
    make_classifier,
    make_projection,
    project,
    unmasked,
)
from pipeline.model.base import FusionModel, check_dropout, check_slots
from pipeline.model.batch import Batch, Prediction

FUSED = ("speech", "text")
SLOTS = (*FUSED, "prosody", "spectral")
PUBLIC_NAMES: dict[str, str | None] = {
    "audio_proj": "front.projections.speech",
    "text_proj": "front.projections.text",
    "f0_embedding": "front.projections.prosody.embedding",
    "f0_proj": "front.projections.prosody.projection",
    "mel_spec_encoder.proj_layer": "front.spectral",
    "mel_spec_encoder": None,  # the CED network: its vectors come from the cache
    **CLASSIFIER_NAMES,
}


class Front(nn.Module):
    """Projected sequences of speech and text, and one vector each of prosody and spectral.

    Args:
        specs: Streams by slot; any of speech, text, prosody (bins, or frames), spectral.
        d_model: Width D of a projected frame, of the embedding of bins, and of a vector.
        dropout: Dropout rate after each projection.
        mask_padding: False counts padding as frames, as the public code does.
    """

    def __init__(
        self, specs: Mapping[str, StreamSpec], d_model: int, dropout: float, *, mask_padding: bool
    ) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        framed = [slot for slot in (*FUSED, "prosody") if slot in specs]
        self.projections = nn.ModuleDict(
            {slot: make_projection(specs[slot], d_model, dropout) for slot in framed}
        )
        self.spectral: ClipBranch | None = None
        if "spectral" in specs:
            self.spectral = ClipBranch(specs["spectral"].dim, d_model, dropout)

    @property
    def fused(self) -> list[str]:
        """Filled slots among speech and text, in this order."""
        return [slot for slot in FUSED if slot in self.projections]

    def sequences(self, batch: Batch) -> dict[str, Stream]:
        """Projected frames of speech and text, `[B, T, D]` by slot."""
        return {slot: self._projected(slot, batch) for slot in self.fused}

    def vectors(self, batch: Batch) -> list[Tensor]:
        """Vectors of prosody (averaged) and spectral, `[B, D]` each."""
        found: list[Tensor] = []
        if "prosody" in self.projections:
            found.append(self._projected("prosody", batch).mean())
        if self.spectral is not None:
            found.append(self.spectral(self._masked(batch.streams["spectral"]).mean()))
        return found

    def _projected(self, slot: str, batch: Batch) -> Stream:
        return self._masked(project(self.projections[slot], batch.streams[slot]))

    def _masked(self, stream: Stream) -> Stream:
        return stream if self.mask_padding else unmasked(stream)


class RecurrentFusion(FusionModel):
    """Base of `bigru_cross` and `hcam`: project, recur, attend, pool, concatenate, classify.

    A kind adds its attention by `make_attention` and applies it by `attend`. With one of speech and
    text alone there is no cross-attention.

    Args:
        specs: Streams by slot; any of speech, text, prosody (bins, or frames), spectral.
        classes: Number of classes K.
        d_model: Width D of a projected frame and of each direction of the GRU.
        heads: Attention heads, over frames of width 2 D.
        dropout: Dropout rate in projections and classifier, and where the kind's attention has it.
        hidden: Hidden width of the classifier; None: as wide as its input.
        classifier: `plain` (Linear, ReLU, Linear) or `swiglu`.
        mask_padding: False counts padding as frames, as the public code does.
    """

    name: ClassVar[str]

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: Width = 512,
        heads: Heads = 8,
        dropout: Share = 0.5,
        hidden: Width | None = None,
        classifier: ClassifierKind = "plain",
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        check(self.name, specs, dropout, heads, 2 * d_model)
        self.front = Front(specs, d_model, dropout, mask_padding=mask_padding)
        slots = self.front.fused
        # The order in which layers are made decides their random weights: keep it.
        self.recurrent = nn.ModuleDict({slot: BiGRU(d_model, d_model) for slot in slots})
        self.make_attention(2 * d_model, heads, dropout)
        self.pools = nn.ModuleDict({slot: AttentivePool(2 * d_model) for slot in slots})
        width = d_model * (len(specs) + len(slots))  # speech and text, from two directions, are 2 D
        self.classifier = make_classifier(classifier, width, hidden, classes, dropout)

    @property
    def paired(self) -> list[str]:
        """Slots that attend to each other: speech and text if both are filled, else none."""
        return self.front.fused if len(self.front.fused) == len(FUSED) else []

    def make_attention(self, width: int, heads: int, dropout: float) -> None:
        """Add the kind's attention layers, for frames of `width` 2 D."""
        raise NotImplementedError

    def attend(self, states: Mapping[str, Stream]) -> dict[str, Stream]:
        """States of the GRUs by slot, `[B, T, 2 D]`, after the kind's attention."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        states = {slot: self.recurrent[slot](x) for slot, x in self.front.sequences(batch).items()}
        vectors = [self.pools[slot](stream) for slot, stream in self.attend(states).items()]
        return Prediction(self.classifier(torch.cat(vectors + self.front.vectors(batch), dim=1)))


def check(
    model: str, specs: Mapping[str, StreamSpec], dropout: float, heads: int, width: int
) -> None:
    """Refuse streams that a model has no place for, and heads that do not divide the width."""
    check_slots(model, specs, SLOTS, binned=("prosody",))
    check_dropout(model, dropout)
    if heads < 1 or width % heads:
        raise ParamsError(
            f"{model}: heads {heads}; expected a divisor of {width}, the width of its attention"
        )
