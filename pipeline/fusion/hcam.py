"""HCAM: hierarchical cross-attention as in the MDAT paper's code (arXiv 2506.02088).

Speech and text are projected, pass a bidirectional GRU and a self-attention stage each; then speech
attends to text, and text to the speech that has done so. Each is pooled by a softmax over time for
each feature. This is one stage of training with cross-entropy, where HCAM itself (arXiv 2304.06910)
trains its levels one after the other with a contrastive loss. Reference layout and golden vectors:
specs.md §2.3; 34,796,552 parameters for speech 1280 and text 1024 wide, 8 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from features.ranges import Heads, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.fusion._front import FUSED, PUBLIC_NAMES, Front, check
from pipeline.fusion._layers import (
    AttentionStage,
    AttentivePool,
    BiGRU,
    ClassifierKind,
    make_classifier,
    renamed,
)
from pipeline.model.base import FusionFactory, FusionModel
from pipeline.model.batch import Batch, Prediction


class HCAM(FusionModel):
    """Project, recur, attend to itself, attend to the other modality, pool, classify.

    With one of speech and text alone there is no cross-attention.

    Args:
        specs: Streams by slot; any of speech, text, prosody (bins, or frames), spectral.
        classes: Number of classes K.
        d_model: Width D of a projected frame and of each direction of the GRU.
        heads: Attention heads, over frames of width 2 D.
        dropout: Rate in projections and classifier.
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
        check("hcam", specs, dropout, heads, 2 * d_model)
        self.front = Front(specs, d_model, dropout, mask_padding=mask_padding)
        slots = self.front.fused
        paired = slots if len(slots) == len(FUSED) else []
        self.recurrent = nn.ModuleDict({slot: BiGRU(d_model, d_model) for slot in slots})
        self.own = nn.ModuleDict({slot: AttentionStage(2 * d_model, heads) for slot in slots})
        self.cross = nn.ModuleDict({slot: AttentionStage(2 * d_model, heads) for slot in paired})
        self.pools = nn.ModuleDict({slot: AttentivePool(2 * d_model) for slot in slots})
        width = d_model * (len(specs) + len(slots))  # speech and text count twice
        self.classifier = make_classifier(classifier, width, hidden, classes, dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        streams: dict[str, Stream] = {}
        for slot, projected in self.front.sequences(batch).items():
            states = self.recurrent[slot](projected)
            streams[slot] = self.own[slot](states, states)
        if self.cross:
            # One after the other: text attends to speech that already knows the text.
            streams["speech"] = self.cross["speech"](streams["speech"], streams["text"])
            streams["text"] = self.cross["text"](streams["text"], streams["speech"])
        vectors = [self.pools[slot](stream) for slot, stream in streams.items()]
        return Prediction(self.classifier(torch.cat(vectors + self.front.vectors(batch), dim=1)))


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `HCAM` from the public code's (docs/adding.md)."""
    names = {
        "audio_context_gru": "recurrent.speech.gru",
        "text_context_gru": "recurrent.text.gru",
        "audio_self_attn": "own.speech.attention.attention",
        "text_self_attn": "own.text.attention.attention",
        "audio_fc_after_self": "own.speech.linear",
        "text_fc_after_self": "own.text.linear",
        "audio_ln_after_self": "own.speech.norm",
        "text_ln_after_self": "own.text.norm",
        "cross_attn_a2t": "cross.speech.attention.attention",
        "cross_attn_t2a": "cross.text.attention.attention",
        "audio_fc_after_cross": "cross.speech.linear",
        "text_fc_after_cross": "cross.text.linear",
        "audio_ln_after_cross": "cross.speech.norm",
        "text_ln_after_cross": "cross.text.norm",
        "audio_attentive_pooling_proj": "pools.speech.score",
        "text_attentive_pooling_proj": "pools.text.score",
    }
    return renamed(weights, PUBLIC_NAMES | names)


build: FusionFactory = HCAM
