"""Parts of LPGNet: attention paths (equations 3-11), the gate across modalities, distillation.

Legend: B batch, N positions (turns of a dialogue, or frames of an utterance), D width, M
modalities. Equation numbers are those of arXiv 2508.08925. Conventions that it takes over from SDT
(arXiv 2310.20494) without saying so: masked keys, bias-free gates. What is assumed: docs/papers.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.stream import Stream

MASKED = -1e10  # score of a key that is padding, equation 4

GlobalContextKind = Literal["pooled", "sequence"]


def sinusoids(length: int, width: int) -> Tensor:
    """Positions as sines (even columns) and cosines (odd ones), `[length, width]`.

    Source: Vaswani et al. 2017, §3.5: wavelengths from 2 pi to 10,000 * 2 pi, geometrically spaced.
    """
    pairs = (width + 1) // 2
    rates = 10_000.0 ** (-torch.arange(pairs) * 2 / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


class MaskedAttention(nn.Module):
    """Dot-product attention O = softmax(Q K^T / sqrt(d)) V over the keys that exist: eq. 3-5.

    The paper names no projections: queries and keys are the streams themselves. `project` adds
    biased linear maps to Q, K and V (no output map). With several heads each attends with its own
    `D / heads` columns, and d is their number. Rows of padded queries are zero.

    Args:
        d_model: Width D.
        heads: Attention heads.
        project: Whether Q, K and V are linear maps of the streams.
    """

    def __init__(self, d_model: int, heads: int, *, project: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (
            nn.Linear(d_model, d_model) if project else nn.Identity() for _ in range(3)
        )

    def forward(self, query: Stream, context: Stream) -> Tensor:
        """`[B, Nq, D]`."""
        q = self._split(self.query(query.values))
        k, v = self._split(self.key(context.values)), self._split(self.value(context.values))
        scores = (q @ k.transpose(-2, -1)).float() / q.shape[-1] ** 0.5  # equation 3
        scores = scores.masked_fill(~context.mask[:, None, None], MASKED)  # equation 4
        weights = scores.softmax(-1).to(v.dtype)  # equation 5
        attended: Tensor = (weights @ v).transpose(1, 2).flatten(2)
        return attended.masked_fill(~query.mask[..., None], 0)

    def _split(self, x: Tensor) -> Tensor:
        """`[B, N, D] -> [B, heads, N, D / heads]`."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class RowNorm(nn.BatchNorm1d):
    """BatchNorm over rows `[R, D]` that takes a single row while training.

    One row (a last batch of one dialogue) has no variance; it is normalised by the running
    statistics, and leaves them as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[R, D]`."""
        if self.training and len(input) == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class GlobalContext(nn.Module):
    """G = LeakyReLU(BN(Conv1x1(pool(O)))): equation 6.

    The paper compresses "the global context" and broadcasts it back, hence `pooled`: the mean over
    the positions that exist, one row a dialogue. `sequence` reads the equation without pooling:
    every position that exists is a row.

    Args:
        d_model: Width D.
        kind: `pooled` or `sequence`.
    """

    def __init__(self, d_model: int, kind: GlobalContextKind) -> None:
        super().__init__()
        self.kind = kind
        self.convolution = nn.Linear(d_model, d_model)  # of kernel 1
        self.norm = RowNorm(d_model)

    def forward(self, attended: Stream) -> Tensor:
        """`[B, 1, D]` if pooled, else `[B, N, D]` with zeros at padding."""
        if self.kind == "pooled":
            return self._rows(attended.mean()).unsqueeze(1)
        rows = self._rows(attended.values[attended.mask])
        context = rows.new_zeros(*attended.mask.shape, rows.shape[-1])
        context[attended.mask] = rows
        return context

    def _rows(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.convolution(x)))


def feed_forward(d_model: int, hidden: int, dropout: float) -> nn.Sequential:
    """F(O) = W2 Dropout(GELU(W1 O + b1)) + b2: equation 7."""
    return nn.Sequential(
        nn.Linear(d_model, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, d_model)
    )


class UnimodalGate(nn.Module):
    """gate(H) = sigmoid(W H) * H, element by element, without bias: equation 9."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]`."""
        return torch.sigmoid(self.linear(x)) * x


class AttentionPath(nn.Module):
    """One of the four parallel paths: attention, its two-stage enhancement and its gate.

    H = Q + G + F(O), where Q is the unprojected query, G the global context, and F a feed-forward
    network at each position; then the gate: equations 3-11. Without F (an ablation of the paper) O
    itself is added, so that what single positions attended to is kept.

    Args:
        attention: Equations 3-5.
        context: Equation 6.
        feed_forward: F of equation 7; an identity for the ablation.
        gate: Equation 9; an identity for the ablation.
    """

    def __init__(
        self,
        attention: MaskedAttention,
        context: GlobalContext,
        feed_forward: nn.Module,
        gate: nn.Module,
    ) -> None:
        super().__init__()
        self.attention, self.context = attention, context
        self.feed_forward, self.gate = feed_forward, gate

    def forward(self, query: Stream, source: Stream) -> Tensor:
        """`[B, Nq, D]`; what stands at padding is not to be read."""
        attended = self.attention(query, source)
        context = self.context(Stream(attended, query.mask))
        enhanced = query.values + context + self.feed_forward(attended)  # equation 8
        gated: Tensor = self.gate(enhanced)  # equations 10, 11
        return gated


class MultimodalGate(nn.Module):
    """R = sum of beta_m * R_m, where beta is a softmax across modalities: equations 13 and 14.

    One bias-free W for all modalities scores each feature of each position by itself. A modality
    that has no such position (frames of one that ended earlier) gets no weight there.

    Args:
        d_model: Width D.
        learned: False: all that are present weigh the same (an ablation of the paper).
    """

    def __init__(self, d_model: int, *, learned: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, d_model, bias=False) if learned else None

    def forward(self, streams: Sequence[Stream]) -> Stream:
        """`[B, N, D]`, present where any modality is; N is that of the longest."""
        length = max(stream.mask.shape[1] for stream in streams)
        masks = torch.stack([lengthen(s.mask, length) for s in streams], dim=2)
        values = torch.stack([lengthen(s.values, length) for s in streams], dim=2)  # [B, N, M, D]
        scores = torch.zeros_like(values) if self.linear is None else self.linear(values)
        scores = scores.float().masked_fill(~masks[..., None], MASKED)
        shares = scores.softmax(2).to(values.dtype)  # equation 13
        return Stream((shares * values).sum(2), masks.any(2))  # equation 14


def distillation(teacher: Tensor, student: Tensor, tau: float) -> Tensor:
    """KL(softmax(teacher / tau) || softmax(student / tau)) in nats, mean over rows: equation 21.

    There is no factor tau^2. Rows of padding must be left out beforehand: weighing them with zero
    afterwards makes their gradients NaN.

    Args:
        teacher: `[R, K]` logits of the whole model.
        student: `[R, K]` logits of one modality.
        tau: Temperature.
    """
    expected = F.softmax(teacher.float() / tau, dim=-1)
    found = F.log_softmax(student.float() / tau, dim=-1)  # equation 19
    return F.kl_div(found, expected, reduction="batchmean")


def lengthen(x: Tensor, length: int) -> Tensor:
    """`[B, N, ...]` with zeros (False) after its positions up to `length`."""
    padding = x.new_zeros(x.shape[0], length - x.shape[1], *x.shape[2:])
    return torch.cat([x, padding], dim=1)
