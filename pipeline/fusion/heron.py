"""HERON: hierarchical residual audio-text fusion (Koudounas et al., submitted to ICASSP 2026).

Level 1 unifies the audio: frames of the speech backbone query those of the non-verbal one. Level 2
injects that context into the text, residually; the mean over tokens goes to a classifier with one
hidden layer of 256. The paper's text is not public: its README gives the backbones, the head,
modality dropout and the protocol, and 7.6 M trainable parameters for 768 wide backbones. The layout
that meets that number is an assumption (docs/papers.md); the default has 7,619,336 parameters for
three slots of 768 and 8 classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from torch import Tensor, nn

from features.errors import ParamsError
from features.ranges import Heads, Interval, Multiple, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.model.base import (
    MOST_DROPPED,
    FusionFactory,
    FusionModel,
    ModalityDropout,
    check_dropout,
    check_slots,
)
from pipeline.model.batch import Batch, Prediction

SLOTS = ("text", "speech", "nonverbal")


class CrossAttention(nn.Module):
    """Post-norm cross-attention block: x = LN(q + MHA(q, kv, kv)); y = LN(x + FFN(x)).

    Args:
        d_model: Width D.
        heads: Attention heads.
        ffn_mult: Hidden width of the feed-forward part, as a multiple of D.
        dropout: Dropout rate inside attention, after it, and in the feed-forward part.
        residual: Whether the query is added to the result of attention.
    """

    def __init__(
        self, d_model: int, heads: int, ffn_mult: int, dropout: float, *, residual: bool = True
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = nn.MultiheadAttention(d_model, heads, dropout, batch_first=True)
        self.attention_norm = nn.LayerNorm(d_model)
        self.ffn = nn.Sequential(
            nn.Linear(d_model, ffn_mult * d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(ffn_mult * d_model, d_model),
        )
        self.ffn_norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Stream, context: Stream) -> Stream:
        """`[B, Tq, D]` with the mask of the query; padded frames of the context have no weight."""
        attended, _ = self.attention(
            query.values,
            context.values,
            context.values,
            key_padding_mask=~context.mask,
            need_weights=False,
        )
        attended = self.dropout(attended)
        x = self.attention_norm(query.values + attended if self.residual else attended)
        return Stream(self.ffn_norm(x + self.dropout(self.ffn(x))), query.mask)


class Heron(FusionModel):
    """HERON's fusion, for frozen backbones.

    A slot that is `none` drops out of the hierarchy: without `nonverbal` (or with `level1: none`)
    the speech frames go straight to level 2; without text the audio itself is pooled and
    classified.

    Args:
        specs: Streams by slot; text, speech, nonverbal.
        classes: Number of classes K.
        d_model: Width D of the fusion.
        heads: Attention heads; their number does not change the parameter count.
        ffn_mult: Hidden width of the blocks' feed-forward part, as a multiple of D.
        hidden: Hidden width of the classifier.
        dropout: Dropout rate in blocks and classifier.
        modality_dropout: Probability with which each modality is zeroed while training.
        pool: `mean` over the tokens, or the `first` (<s>, [CLS]).
        level1: `cross` unifies speech and non-verbal audio; `none` uses speech alone.
        residual: Whether level 2 adds its query, the text.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: Width = 512,
        heads: Heads = 8,
        ffn_mult: Multiple = 4,
        hidden: Width = 256,
        dropout: Share = 0.1,
        modality_dropout: Annotated[float, Interval(ge=0, le=MOST_DROPPED)] = 0.2,
        pool: Literal["mean", "first"] = "mean",
        level1: Literal["cross", "none"] = "cross",
        residual: bool = True,
    ) -> None:
        super().__init__()
        check_slots("heron", specs, SLOTS)
        check_dropout("heron", dropout)
        if d_model % heads:
            raise ParamsError(
                f"heron: d_model {d_model}, heads {heads}; expected a multiple of heads"
            )
        used = [slot for slot in SLOTS if slot in specs]
        if level1 == "none" and "speech" in used and "nonverbal" in used:
            used.remove("nonverbal")
        self.pool = pool
        self.modality_dropout = ModalityDropout(modality_dropout)
        self.projections = nn.ModuleDict(
            {slot: nn.Linear(specs[slot].dim, d_model) for slot in used}
        )
        self.level1 = self.level2 = None
        if "speech" in used and "nonverbal" in used:
            self.level1 = CrossAttention(d_model, heads, ffn_mult, dropout)
        if "text" in used and len(used) > 1:
            self.level2 = CrossAttention(d_model, heads, ffn_mult, dropout, residual=residual)
        self.classifier = nn.Sequential(
            nn.Linear(d_model, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        streams = self.modality_dropout({slot: batch.streams[slot] for slot in self.projections})
        projected = {
            slot: Stream(self.projections[slot](stream.values), stream.mask)
            for slot, stream in streams.items()
        }
        return Prediction(self.classifier(self._pooled(self.fuse(projected))))

    def fuse(self, projected: Mapping[str, Stream]) -> Stream:
        """Frames to be pooled: audio unified (level 1), then injected into the text (level 2)."""
        audio = projected.get("speech", projected.get("nonverbal"))
        if self.level1 is not None:
            audio = self.level1(projected["speech"], projected["nonverbal"])
        text = projected.get("text")
        if text is None:
            # `check_slots` refuses a model without any slot.
            assert audio is not None
            return audio
        if self.level2 is None or audio is None:
            return text
        fused: Stream = self.level2(text, audio)
        return fused

    def _pooled(self, stream: Stream) -> Tensor:
        return stream.mean() if self.pool == "mean" else stream.first()


build: FusionFactory = Heron
