"""Concatenation of pooled modalities: the "simple" baseline of the MDAT paper (arXiv 2506.02088).

Each stream (F0 bins: their learnable embedding) is averaged over time, projected, and concatenated;
an MLP classifies. Golden vectors of the public code match; 2,238,472 parameters for speech 1280 and
text 1024 wide, 8 classes; 3,941,896 with F0 and SwiGLU. With one slot filled it is the unimodal
baseline.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from features.ranges import Share, Width
from features.stream import Stream, StreamSpec
from pipeline.fusion._parts.layers import (
    CLASSIFIER_NAMES,
    ClassifierKind,
    PitchBranch,
    make_classifier,
    make_projection,
    renamed,
    unmasked,
)
from pipeline.model.base import FusionFactory, FusionModel, check_slots
from pipeline.model.batch import Batch, Prediction

ORDER = ("speech", "nonverbal", "text", "prosody", "spectral")


class Concat(FusionModel):
    """Pool, project, concatenate, classify.

    Args:
        specs: Streams by slot; any slot. Bins get an embedding of width `d_model`.
        classes: Number of classes K.
        d_model: Width D of each modality's vector.
        hidden: Hidden width of the classifier; None: as wide as its input.
        dropout: Dropout rate in branches and classifier.
        classifier: `plain` (one hidden layer) or `swiglu`.
        mask_padding: False counts padding as frames, as the public code does.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: Width = 512,
        hidden: Width | None = None,
        dropout: Share = 0.5,
        classifier: ClassifierKind = "plain",
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        check_slots("concat", specs, ORDER, binned=ORDER)
        self.mask_padding = mask_padding
        self.branches = nn.ModuleDict(
            {
                slot: make_projection(specs[slot], d_model, dropout)
                for slot in ORDER
                if slot in specs
            }
        )
        width = d_model * len(self.branches)
        self.classifier = make_classifier(classifier, width, hidden, classes, dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        vectors = [self.vector(slot, batch.streams[slot]) for slot in self.branches]
        return Prediction(self.classifier(torch.cat(vectors, dim=1)))

    def vector(self, slot: str, stream: Stream) -> Tensor:
        """`[B, D]` of one modality: frames, or embeddings of bins, are averaged, then projected."""
        projection = self.branches[slot]
        if isinstance(projection, PitchBranch):
            # Embeddings are averaged, as a mean of bin numbers has no meaning.
            stream, projection = projection.embed(stream), projection.projection
        seen = stream if self.mask_padding else unmasked(stream)
        projected: Tensor = projection(seen.mean())
        return projected


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `Concat` from one of the public code's "simple" models (docs/papers.md)."""
    names = {
        "audio_proj": "branches.speech",
        "text_proj": "branches.text",
        "f0_embedding": "branches.prosody.embedding",
        "f0_proj": "branches.prosody.projection",
        **CLASSIFIER_NAMES,
    }
    return renamed(weights, names)


build: FusionFactory = Concat
