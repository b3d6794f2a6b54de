"""BiGRU with cross-attention: a baseline in the MDAT paper's code (arXiv 2506.02088).

Speech and text are projected and pass a bidirectional GRU each (the code calls it `bi_lstm`). Then
each attends to the other one's GRU states, residually, and is pooled by a softmax over time for
each feature. F0 bins and a spectral vector may join the concatenation. Reference layout and golden
vectors: specs.md §2.3; 22,193,160 parameters for speech 1280 and text 1024 wide, 8 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from features.stream import Stream
from pipeline.fusion._parts.front import PUBLIC_NAMES, RecurrentFusion
from pipeline.fusion._parts.layers import ResidualAttention, renamed
from pipeline.model.base import FusionFactory


class BiGRUCross(RecurrentFusion):
    """`RecurrentFusion` whose modalities attend to each other at once."""

    name = "bigru_cross"

    def make_attention(self, width: int, heads: int, dropout: float) -> None:
        """Add the attention of speech to text and of text to speech."""
        self.cross = nn.ModuleDict(
            {slot: ResidualAttention(width, heads, dropout) for slot in self.paired}
        )

    def attend(self, states: Mapping[str, Stream]) -> dict[str, Stream]:
        """Each modality plus what it attends to in the other, `[B, T, 2 D]`."""
        if not self.cross:
            return dict(states)
        speech, text = states["speech"], states["text"]
        return {
            "speech": self.cross["speech"](speech, text),
            "text": self.cross["text"](text, speech),
        }


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `BiGRUCross` from the public code's (docs/papers.md)."""
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
