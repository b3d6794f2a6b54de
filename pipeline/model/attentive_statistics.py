"""Attentive statistics pooling: mean and deviation over time, weighted by learned attention.

Sources: Okabe et al. 2018 (arXiv 1803.10963), one weight a frame; ECAPA-TDNN, Desplanques et al.
2020 (arXiv 2005.07143), one weight a frame and feature, which sees the statistics of the whole
utterance too. The activation is tanh, as in the baseline of the Odyssey 2024 challenge.

Shapes: B batch, T time, D width, R hidden width of the attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from features.stream import Stream, weighted_statistics


class AttentiveStatistics(nn.Module):
    """One vector an utterance: weighted mean, then weighted standard deviation, `[B, 1, 2 D]`.

    e_t = V tanh(W h_t + b), a = softmax_t(e), mean = sum_t a_t h_t, and std = sqrt(sum_t a_t (h_t -
    mean)^2). The papers add a constant k to e_t, which a softmax over time does not see.

    Args:
        width: Width D of the frames.
        hidden: Width R; None: D.
        by_channel: Whether each feature has weights of its own, and W sees mean and deviation of
            all frames beside h_t (ECAPA-TDNN); else a frame has one weight (Okabe et al.).
    """

    def __init__(self, width: int, hidden: int | None, *, by_channel: bool) -> None:
        super().__init__()
        hidden = hidden or width
        self.frame = nn.Linear(width, hidden)
        self.context = nn.Linear(2 * width, hidden, bias=False) if by_channel else None
        self.score = nn.Linear(hidden, width if by_channel else 1, bias=False)

    def forward(self, stream: Stream) -> Stream:
        """Pool `[B, T, D]` with zeros at padding; zeros, and no frame, where there was none."""
        exists = stream.mask.any(1, keepdim=True)
        mean, std = weighted_statistics(stream.values, self.weights(stream))
        return Stream(torch.cat([mean, std], dim=-1)[:, None], exists)

    def weights(self, stream: Stream) -> Tensor:
        """a, `[B, T, 1]` or `[B, T, D]`: it sums to 1 over T, and is 0 at padding."""
        hidden: Tensor = self.frame(stream.values)
        if self.context is not None:
            # W [h; mean; std], without a copy of the statistics for each frame.
            hidden = hidden + self.context(torch.cat([stream.mean(), stream.std()], -1))[:, None]
        # A softmax over nothing is NaN: without any frame all take part, which are zeros.
        padding = ~stream.mask & stream.mask.any(1, keepdim=True)
        scores: Tensor = self.score(hidden.tanh())
        return scores.masked_fill(padding[..., None], -torch.inf).softmax(1)
