"""What only the graph-attention fusion has: graph attention, co-attention, the branch of CED.

Legend: B batch, T time, D width, H heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.errors import ParamsError
from features.stream import Stream
from pipeline.fusion._layers import present, visible
from pipeline.fusion._recurrent import AttentionStage

NEGATIVE_SLOPE = 0.2


class GraphAttention(nn.Module):
    """Graph attention over the frames of an utterance, a fully connected graph with self-loops.

    h = W x; e_ij = LeakyReLU_0.2(a . [h_i; h_j]); alpha = softmax_j(e); y_i = sum_j alpha_ij h_j,
    without bias, residual or activation (Velickovic et al. 2018; MDAT's code has one head). The
    product a . [h_i; h_j] is s_i + t_j, the two halves of `a` applied to each frame once, so that
    the tensor of all pairs `[B, T, T, 2 D]` of the naive form never exists. What takes memory is
    scores and weights, `[B, H, T, T]` each, kept for the backward pass. For an utterance of 30 s
    of Whisper (T = 1500), D = 512 and one head that is 9 MB each; the naive tensor has 9.2 GB.

    Args:
        width: Width of the frames.
        d_model: Width D of the result.
        heads: Heads H, each `d_model / heads` wide, concatenated.
    """

    def __init__(self, width: int, d_model: int, heads: int = 1) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise ParamsError(
                f"graph attention: heads {heads}; expected a divisor of d_model, {d_model}"
            )
        self.heads = heads
        self.transform = nn.Linear(width, d_model, bias=False)
        self.score = nn.Parameter(torch.empty(heads, 2 * (d_model // heads)))  # [a_i; a_j]
        nn.init.kaiming_uniform_(self.score, a=math.sqrt(5))  # what a linear layer starts with

    def nodes(self, stream: Stream) -> Tensor:
        """h: `[B, H, T, D / H]`."""
        transformed: Tensor = self.transform(stream.values)
        split = transformed.view(*transformed.shape[:2], self.heads, -1)
        return split.transpose(1, 2)

    def weights(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """alpha: `[B, H, T, T]`, summing to 1 over the last axis, the neighbours j."""
        own, other = self.score.chunk(2, dim=1)
        receiving = torch.einsum("bhtf,hf->bht", nodes, own)
        neighbour = torch.einsum("bhtf,hf->bht", nodes, other)
        # Hiding t_j hides the whole column, since LeakyReLU(-inf) is -inf.
        neighbour = neighbour.masked_fill(~visible(mask)[:, None], -torch.inf)
        scores = receiving[..., :, None] + neighbour[..., None, :]
        return F.leaky_relu(scores, NEGATIVE_SLOPE, inplace=True).softmax(-1)

    def forward(self, stream: Stream) -> Stream:
        """`[B, T, D]`."""
        nodes = self.nodes(stream)
        gathered = self.weights(nodes, stream.mask) @ nodes
        joined = gathered.transpose(1, 2).flatten(2)
        return Stream(joined * present(stream.mask, joined.dtype), stream.mask)


class CoAttention(nn.Module):
    """Co-attention: two streams gather from each other by one shared affinity.

    M = (U_a a)(U_b b)^T, without bias and without the scale 1/sqrt(D); a gathers
    softmax_rows(M) b, and b gathers softmax_rows(M^T) a: the values are not projected.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)

    def affinity(self, a: Stream, b: Stream) -> Tensor:
        """M: `[B, Ta, Tb]`."""
        product: Tensor = self.first(a.values) @ self.second(b.values).transpose(1, 2)
        return product

    @staticmethod
    def gather(affinity: Tensor, context: Stream) -> Tensor:
        """`[B, Tq, D]` of the context by an affinity `[B, Tq, Tc]`; zeros where it is empty."""
        scores = affinity.masked_fill(~visible(context.mask)[:, None], -torch.inf)
        return scores.softmax(-1) @ context.values * present(context.mask, scores.dtype)

    def forward(self, a: Stream, b: Stream) -> tuple[Tensor, Tensor]:
        """What each of the two gathers from the other, without the residual."""
        affinity = self.affinity(a, b)
        return self.gather(affinity, b), self.gather(affinity.transpose(1, 2), a)


class Graphs(nn.ModuleList):
    """Graph-attention layers on top of each other, ELU between them.

    Args:
        d_model: Width D of input and result.
        layers: Their number; the paper's code has one, so that its layer has no activation.
        heads: Heads of each.
    """

    def __init__(self, d_model: int, layers: int, heads: int) -> None:
        super().__init__(GraphAttention(d_model, d_model, heads) for _ in range(layers))

    def forward(self, stream: Stream) -> Stream:
        """`[B, T, D]`."""
        for number, layer in enumerate(self):
            if number:
                stream = Stream(F.elu(stream.values), stream.mask)
            stream = layer(stream)
        return stream


class CoExchange(CoAttention):
    """`CoAttention` with the residual: a + what it gathers from b, and the other way round."""

    def exchange(self, a: Stream, b: Stream) -> tuple[Stream, Stream]:
        """Both streams, updated."""
        from_b, from_a = self(a, b)
        return Stream(a.values + from_b, a.mask), Stream(b.values + from_a, b.mask)

    def collect(self, own: Stream, others: list[Stream]) -> Stream:
        """A third modality's way: own + sum over others of (own + what it gathers from that one).

        As the public code has it for F0: with audio and text that is three times F0 itself, and
        both attentions share their weights.
        """
        values = own.values
        for other in others:
            values = values + own.values + self.gather(self.affinity(own, other), other)
        return Stream(values, own.mask)


class MultiheadExchange(nn.Module):
    """Multi-head cross-attention both ways, each from the other's values before the exchange."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.first = AttentionStage(d_model, heads, dropout)
        self.second = AttentionStage(d_model, heads, dropout)

    def exchange(self, a: Stream, b: Stream) -> tuple[Stream, Stream]:
        """Both streams, updated."""
        return self.first(a, b), self.second(b, a)


class ClipBranch(nn.Sequential):
    """One vector of an utterance (CED's) through Linear, ReLU, Dropout, Linear: `[B, D]`."""

    def __init__(self, width: int, d_model: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, d_model), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_model, d_model)
        )
