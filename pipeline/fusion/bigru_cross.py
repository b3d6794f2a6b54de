"""BiGRU with cross-attention: a baseline in the MDAT paper's code (arXiv 2506.02088).

Speech and text are projected and pass a bidirectional GRU each (the code calls it `bi_lstm`). Then
each attends to what the other one's GRU gave, residually, and is pooled by a softmax over time for
each feature. F0 bins and a spectral vector may join the concatenation. Reference layout and golden
vectors: specs.md §2.3; 22,193,160 parameters for speech 1280 and text 1024 wide, 8 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from features.ranges import Heads, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.fusion._front import FUSED, PUBLIC_NAMES, Front, check
from pipeline.fusion._layers import (
    AttentivePool,
    BiGRU,
    ClassifierKind,
    ResidualAttention,
    make_classifier,
    renamed,
)
from pipeline.model.base import FusionFactory, FusionModel
from pipeline.model.batch import Batch, Prediction


class BiGRUCross(FusionModel):
    """Project, recur, attend to the other modality, pool, concatenate, classify.

    With one of speech and text alone there is no cross-attention.

    Args:
        specs: Streams by slot; any of speech, text, prosody (bins, or frames), spectral.
        classes: Number of classes K.
        d_model: Width D of a projected frame and of each direction of the GRU.
        heads: Attention heads, over frames of width 2 D.
        dropout: Rate in projections, attention weights and classifier.
        hidden: Hidden width of the classifier; None: as wide as its input.
        classifier: `plain` (Linear, ReLU, Linear) or `swiglu`.
        mask_padding: False lets padded frames take part, as the public code does.
    """

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
        check("bigru_cross", specs, dropout, heads, 2 * d_model)
        self.front = Front(specs, d_model, dropout, mask_padding=mask_padding)
        slots = self.front.fused
        paired = slots if len(slots) == len(FUSED) else []
        self.recurrent = nn.ModuleDict({slot: BiGRU(d_model, d_model) for slot in slots})
        self.cross = nn.ModuleDict(
            {slot: ResidualAttention(2 * d_model, heads, dropout) for slot in paired}
        )
        self.pools = nn.ModuleDict({slot: AttentivePool(2 * d_model) for slot in slots})
        width = d_model * (len(specs) + len(slots))  # speech and text count twice
        self.classifier = make_classifier(classifier, width, hidden, classes, dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        sequences = self.front.sequences(batch)
        fused = self.fuse({slot: self.recurrent[slot](sequences[slot]) for slot in sequences})
        vectors = [self.pools[slot](stream) for slot, stream in fused.items()]
        return Prediction(self.classifier(torch.cat(vectors + self.front.vectors(batch), dim=1)))

    def fuse(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Each modality plus what it attends to in the other, `[B, T, 2 D]`."""
        if not self.cross:
            return dict(streams)
        speech, text = streams["speech"], streams["text"]
        return {
            "speech": self.cross["speech"](speech, text),
            "text": self.cross["text"](text, speech),
        }


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `BiGRUCross` from the public code's (docs/adding.md)."""
    names = {
        "audio_bi_lstm": "recurrent.speech.gru",
        "text_bi_lstm": "recurrent.text.gru",
        "audio_attn": "cross.speech.attention",
        "text_attn": "cross.text.attention",
        "audio_simple_att_proj": "pools.speech.score",
        "text_simple_att_proj": "pools.text.score",
    }
    return renamed(weights, PUBLIC_NAMES | names)


build: FusionFactory = BiGRUCross
