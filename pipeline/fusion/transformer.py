"""Transformer fusion: the "Transformer" baseline of the MDAT paper (arXiv 2506.02088).

Speech and text are projected, pass one post-norm encoder layer each, are averaged over time and
concatenated; an MLP classifies. Modalities meet only in the classifier. F0 bins and a spectral
vector may join them there. Reference layout and golden vectors: specs.md §2.3; 8,543,240
parameters for speech 1280 and text 1024 wide, 8 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from features.ranges import Heads, Share, Width
from features.stream import StreamSpec
from pipeline.fusion._parts.front import PUBLIC_NAMES, Front, check
from pipeline.fusion._parts.layers import ClassifierKind, Encoder, make_classifier, renamed
from pipeline.model.base import FusionFactory, FusionModel
from pipeline.model.batch import Batch, Prediction


class Transformer(FusionModel):
    """Project, encode, average, concatenate, classify.

    Args:
        specs: Streams by slot; any of speech, text, prosody (bins, or frames), spectral.
        classes: Number of classes K.
        d_model: Width D of each modality; the encoders' feed-forward part is 4 D wide.
        heads: Attention heads of the encoders.
        dropout: Dropout rate in projections, encoders and classifier.
        hidden: Hidden width of the classifier; None: as wide as its input.
        classifier: `plain` (Linear, ReLU, Linear) or `swiglu`.
        mask_padding: False counts padding as frames, as the public code does.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: Width = 512,
        heads: Heads = 1,
        dropout: Share = 0.5,
        hidden: Width | None = None,
        classifier: ClassifierKind = "plain",
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        check("transformer", specs, dropout, heads, d_model)
        self.front = Front(specs, d_model, dropout, mask_padding=mask_padding)
        self.encoders = nn.ModuleDict(
            {slot: Encoder(d_model, heads, dropout) for slot in self.front.fused}
        )
        width = d_model * len(specs)
        self.classifier = make_classifier(classifier, width, hidden, classes, dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        sequences = self.front.sequences(batch)
        vectors = [self.encoders[slot](stream).mean() for slot, stream in sequences.items()]
        return Prediction(self.classifier(torch.cat(vectors + self.front.vectors(batch), dim=1)))


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `Transformer` from the public code's (docs/papers.md)."""
    names = {
        "audio_trans_enc": "encoders.speech.layer",
        "text_trans_enc": "encoders.text.layer",
    }
    return renamed(weights, PUBLIC_NAMES | names)


build: FusionFactory = Transformer
