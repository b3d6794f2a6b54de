"""HCAM: hierarchical cross-attention as in the MDAT paper's code (arXiv 2506.02088).

Speech and text are projected, pass a bidirectional GRU and a self-attention stage each; then speech
attends to text, and text to the speech that has done so. Each is pooled by a softmax over time for
each feature. This is one stage of training with cross-entropy, where HCAM itself (arXiv 2304.06910)
trains its levels one after the other with a contrastive loss. Reference layout and golden vectors:
specs.md §2.3; 34,796,552 parameters for speech 1280 and text 1024 wide, 8 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from features.stream import Stream
from pipeline.fusion._parts.front import PUBLIC_NAMES, RecurrentFusion
from pipeline.fusion._parts.layers import AttentionStage, renamed
from pipeline.model.base import FusionFactory


class HCAM(RecurrentFusion):
    """`RecurrentFusion` whose modalities attend to themselves, then one after the other across."""

    name = "hcam"

    def make_attention(self, width: int, heads: int, dropout: float) -> None:  # noqa: ARG002  it has none
        """Add self-attention and cross-attention, without dropout of attention weights."""
        self.own = nn.ModuleDict({slot: AttentionStage(width, heads) for slot in self.front.fused})
        self.cross = nn.ModuleDict({slot: AttentionStage(width, heads) for slot in self.paired})

    def attend(self, states: Mapping[str, Stream]) -> dict[str, Stream]:
        """Each modality after both levels, `[B, T, 2 D]`."""
        streams: dict[str, Stream] = {slot: self.own[slot](x, x) for slot, x in states.items()}
        if self.cross:
            # One after the other: text attends to speech that already holds text.
            streams["speech"] = self.cross["speech"](streams["speech"], streams["text"])
            streams["text"] = self.cross["text"](streams["text"], streams["speech"])
        return streams


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `HCAM` from the public code's (docs/papers.md)."""
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
