"""Layers shared by the fusion models of the MDAT paper's code (arXiv 2506.02088), with masks.

All keep padded frames out of every softmax, mean and recurrence, where the public code has no
masks. An utterance without any frame yields zeros, and finite gradients.

Shapes: B batch, T time, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from features.errors import ParamsError
from features.stream import Stream, StreamSpec

ClassifierKind = Literal["plain", "swiglu"]
WRAPPER = "model."  # prefix of the model's weights in a Lightning checkpoint
# Our prefix by public prefix, for `renamed`.
CLASSIFIER_NAMES: dict[str, str | None] = {
    "mlp.layers": "classifier",
    "mlp.W": "classifier.gate",
    "mlp.V": "classifier.value",
    "mlp.W2": "classifier.output",
}


def visible(mask: Tensor) -> Tensor:
    """Frames that a softmax runs over, `[B, T]`: those that exist, or all where none does.

    A softmax over nothing is NaN, and so is its gradient even if the result is not used. The caller
    sets utterances without frames to zero afterwards (`present`).
    """
    return mask | ~mask.any(1, keepdim=True)


def present(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Factor `[B, 1, 1]`: 1 where an utterance has frames, else 0."""
    return mask.any(1)[:, None, None].to(dtype)


def unmasked(stream: Stream) -> Stream:
    """Stream whose padding counts as frames, as in the public code."""
    return Stream(stream.values, torch.ones_like(stream.mask))


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str | None]) -> dict[str, Tensor]:
    """Weights of the public code under our names.

    Args:
        weights: State dict of a model, or of the Lightning module around it, where every name of
            the model begins with `model.` and the loss may have weights of its own.
        names: Our prefix by public prefix, both without the dot at the end; the longest that fits
            is taken. None: weights to leave out.

    Raises:
        ParamsError: If a weight begins with none of the prefixes.
    """
    if any(key.startswith(WRAPPER) for key in weights):
        weights = {k.removeprefix(WRAPPER): v for k, v in weights.items() if k.startswith(WRAPPER)}
    found = {}
    for key, value in weights.items():
        # With the dot, `mlp.W` fits `mlp.W.weight`, but not `mlp.W2.weight`.
        fitting = [public for public in names if f"{key}.".startswith(f"{public}.")]
        if not fitting:
            raise ParamsError(
                f"given the weight {key!r}; expected names that begin with one of "
                f"{sorted(names)}; is it a checkpoint of another model?"
            )
        public = max(fitting, key=len)
        ours = names[public]
        if ours is not None:
            found[ours + key.removeprefix(public)] = value
    return found


class Projection(nn.Sequential):
    """Linear, ReLU, Dropout: `[..., width]` to `[..., d_model]`."""

    def __init__(self, width: int, d_model: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, d_model), nn.ReLU(), nn.Dropout(dropout))


class PitchBranch(nn.Module):
    """Learnable embedding of integer bins, then `Projection`: `[B, T]` to `[B, T, D]`.

    Args:
        bins: Number of bins; the embedding has one row more, for padding.
        embed_width: Width E of the embedding.
        d_model: Width D of the result.
        dropout: Dropout rate after the projection.
    """

    def __init__(self, bins: int, embed_width: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(bins + 1, embed_width)
        self.projection = Projection(embed_width, d_model, dropout)

    def embed(self, stream: Stream) -> Stream:
        """`[B, T]` bins to `[B, T, E]`, before the projection."""
        # Padding holds 0, which is a bin too; the last row of the embedding tells them apart.
        bins = stream.values.masked_fill(~stream.mask, self.embedding.num_embeddings - 1)
        return Stream(self.embedding(bins), stream.mask)

    def forward(self, stream: Stream) -> Stream:
        """`[B, T]` bins to `[B, T, D]`."""
        return Stream(self.projection(self.embed(stream).values), stream.mask)


def make_projection(
    spec: StreamSpec, d_model: int, dropout: float, *, embed_width: int | None = None
) -> Projection | PitchBranch:
    """Layers that bring a stream to width D; bins get an embedding, by default D wide too."""
    if spec.bins is None:
        return Projection(spec.dim, d_model, dropout)
    return PitchBranch(spec.bins, embed_width or d_model, d_model, dropout)


def project(projection: nn.Module, stream: Stream) -> Stream:
    """Stream of width D by the layers that `make_projection` returned."""
    if isinstance(projection, PitchBranch):
        # It marks padding by an index of its own, so it needs the mask.
        projected: Stream = projection(stream)
        return projected
    return Stream(projection(stream.values), stream.mask)


class ClipBranch(nn.Sequential):
    """Linear, ReLU, Dropout, Linear on one vector of an utterance (CED's): `[B, D]`."""

    def __init__(self, width: int, d_model: int, dropout: float) -> None:
        super().__init__(*Projection(width, d_model, dropout), nn.Linear(d_model, d_model))


class AttentivePool(nn.Module):
    """Weighted sum over time, with weights of its own for each feature, `[B, D]`.

    w = softmax_t(Linear(x)), y = sum_t w_t * x_t, where w has the shape of x: `[B, T, D]`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width)

    def weights(self, stream: Stream) -> Tensor:
        """w: `[B, T, D]`, summing to 1 over T; zeros for an utterance without frames."""
        hidden = ~visible(stream.mask)[..., None]
        scores: Tensor = self.score(stream.values).masked_fill(hidden, -torch.inf)
        # Where no frame exists, `visible` lets all of them in: this makes their weights 0.
        return scores.softmax(1) * present(stream.mask, scores.dtype)

    def forward(self, stream: Stream) -> Tensor:
        """`[B, D]`."""
        return (self.weights(stream) * stream.values).sum(1)


class Encoder(nn.Module):
    """Post-norm transformer encoder layer (ReLU, feed-forward width 4 D), padded keys hidden."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            d_model, heads, 4 * d_model, dropout, batch_first=True
        )

    def forward(self, stream: Stream) -> Stream:
        """`[B, T, D]`."""
        # torch hides keys where its mask is True, which is the inverse of a stream's mask.
        encoded = self.layer(stream.values, src_key_padding_mask=~visible(stream.mask))
        return Stream(encoded, stream.mask)


class MLP(nn.Sequential):
    """Linear, ReLU, Dropout, Linear to K classes; Kaiming-uniform weights, zero biases."""

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        layers = nn.Linear(width, hidden), nn.Linear(hidden, classes)
        super().__init__(layers[0], nn.ReLU(), nn.Dropout(dropout), layers[1])
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class SwiGLU(nn.Module):
    """W2 Dropout(swish(W x) * V x): SwiGLU of arXiv 2002.05202, with biases, which it has not."""

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, K]` for `[B, width]`."""
        logits: Tensor = self.output(self.dropout(F.silu(self.gate(x)) * self.value(x)))
        return logits


def make_classifier(
    kind: ClassifierKind, width: int, hidden: int | None, classes: int, dropout: float
) -> MLP | SwiGLU:
    """Classifier of the paper's code, plain or SwiGLU; `hidden` None: as wide as its input."""
    build = SwiGLU if kind == "swiglu" else MLP
    return build(width, hidden or width, classes, dropout)


class BiGRU(nn.Module):
    """Bidirectional GRU layer over the frames that exist.

    The backward direction starts at a sequence's own last frame, not in its padding.

    Args:
        width: Width of the input.
        hidden: Width of each direction; the output is twice as wide, the forward half first.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, stream: Stream) -> Stream:
        """`[B, T, width]` to `[B, T, 2 hidden]`; zeros where there is padding."""
        if torch.compiler.is_exporting():  # a packed sequence has no shape that could be traced
            return self._scanned(stream)
        # Autocast, which would convert them, is off below.
        values = stream.values.to(self.gru.all_weights[0][0].dtype)
        # torch packs no empty sequence: such a one keeps a frame, which is zeroed afterwards.
        lengths = stream.mask.sum(1).clamp(min=1).cpu()
        # Not in bfloat16, as rounding errors add up over a recurrence.
        with torch.autocast(values.device.type, enabled=False):
            frames = pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(
                self.gru(frames)[0], batch_first=True, total_length=values.shape[1]
            )
        return Stream(states * stream.mask[..., None], stream.mask)

    def _scanned(self, stream: Stream) -> Stream:
        """The same frame by frame, for `torch.export`: padding leaves a state as it is."""
        from torch._higher_order_ops.scan import scan

        mask = stream.mask.T[..., None]
        both = []
        for reverse, (w_in, w_state, b_in, b_state) in enumerate(self.gru.all_weights):

            def step(
                state: Tensor,
                frame: tuple[Tensor, Tensor],
                w: Tensor = w_state,
                b: Tensor = b_state,
            ) -> tuple[Tensor, Tensor]:
                reset, update, new = frame[0].chunk(3, -1)
                own_reset, own_update, own_new = F.linear(state, w, b).chunk(3, -1)
                update = (update + own_update).sigmoid()
                new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
                state = torch.where(frame[1], new + update * (state - new), state)
                return state, state.clone()  # a scan's results must not be the same tensor

            frames = F.linear(stream.values, w_in, b_in).transpose(0, 1)
            start = stream.values.new_zeros(frames.shape[1], self.gru.hidden_size)
            both.append(scan(step, start, (frames, mask), reverse=bool(reverse))[1])
        states = torch.cat(both, -1).transpose(0, 1)
        return Stream(states * stream.mask[..., None], stream.mask)


class ResidualAttention(nn.Module):
    """Multi-head attention added to its query: x + MHA(x, c, c).

    Args:
        width: Width D of query and context.
        heads: Attention heads.
        dropout: Dropout rate of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, query: Stream, context: Stream) -> Stream:
        """`[B, Tq, D]` with the mask of the query; padded frames of the context have no weight."""
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
    """`ResidualAttention` and a normalised layer: y = x + MHA(x, c, c); LN(y + Linear(y))."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = ResidualAttention(width, heads, dropout)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Stream, context: Stream) -> Stream:
        """`[B, Tq, D]` with the mask of the query; padded frames of the context have no weight."""
        attended = self.attention(query, context).values
        return Stream(self.norm(attended + self.linear(attended)), query.mask)
