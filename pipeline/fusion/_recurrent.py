"""Layers of the recurrent fusions of the MDAT paper's code (arXiv 2506.02088), masked.

An utterance without any frame gives zeros, and finite gradients. Legend: B batch, T time, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from features.stream import Stream
from pipeline.fusion._layers import present, visible


class BiGRU(nn.Module):
    """One bidirectional GRU layer over the frames of each sequence that exist.

    The backward direction starts at a sequence's own last frame, not in its padding. Computed in
    the precision of its weights under autocast too, since rounding adds up over a recurrence.

    Args:
        width: Width of the input.
        hidden: Width of each direction; the output is twice as wide, the forward half first.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, stream: Stream) -> Stream:
        """`[B, T, width]` to `[B, T, 2 hidden]`; zeros where there is padding."""
        values = stream.values.to(self.gru.all_weights[0][0].dtype)
        # torch packs no empty sequence: such a one keeps a frame, which is zeroed afterwards.
        lengths = stream.mask.sum(1).clamp(min=1).cpu()
        with torch.autocast(values.device.type, enabled=False):
            frames = pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(
                self.gru(frames)[0], batch_first=True, total_length=values.shape[1]
            )
        return Stream(states * stream.mask[..., None], stream.mask)


class ResidualAttention(nn.Module):
    """Multi-head attention added to its query: x + MHA(x, c, c).

    Args:
        width: Width D of query and context.
        heads: Attention heads.
        dropout: Rate of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, query: Stream, context: Stream) -> Stream:
        """`[B, Tq, D]` with the mask of the query; padded frames of the context are not seen."""
        attended: Tensor = self.attention(
            query.values,
            context.values,
            context.values,
            key_padding_mask=~visible(context.mask),
            need_weights=False,
        )[0]
        attended = attended * present(context.mask, attended.dtype)
        return Stream(query.values + attended, query.mask)


class AttentionStage(nn.Module):
    """y = x + MHA(x, c, c); LN(y + Linear(y)).

    Args:
        width: Width D of query and context.
        heads: Attention heads.
        dropout: Rate of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = ResidualAttention(width, heads, dropout)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Stream, context: Stream) -> Stream:
        """`[B, Tq, D]` with the mask of the query; padded frames of the context are not seen."""
        attended = self.attention(query, context).values
        return Stream(self.norm(attended + self.linear(attended)), query.mask)
