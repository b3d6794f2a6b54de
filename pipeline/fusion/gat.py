"""Graph-attention fusion: MDAT, the challenge system of arXiv 2506.02088.

Each frame sequence is projected, passes a graph attention of its own, and attends to the other one
(co-attention); an encoder layer and a feature-wise attentive pooling turn it into a vector, and a
classifier takes the vectors side by side. F0 bins have a learnable embedding, F0 in Hz ("raw F0") a
convolution; either is averaged, or takes part in the attention. A spectral vector (CED) goes
straight to the classifier. The public code (alefiury/InterSpeech-SER-2025) is the specification,
Zaidi et al. (arXiv 2306.13804) the origin of "dual attention". Golden vectors of six variants
match; 10,119,176 parameters for speech 1280 and text 1024 wide with the plain classifier,
11,822,600 with F0 and SwiGLU (8 classes).

What the paper leaves open (number of graph layers, heads, with or without co-attention) are
arguments, whose defaults are the public code. docs/papers.md lists the differences.

The model comes first, then its layers in the order in which a stream passes them.
Shapes: B batch, T time, D width, H heads, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.errors import ParamsError
from features.ranges import Heads, Interval, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.fusion._parts.layers import (
    CLASSIFIER_NAMES,
    AttentionStage,
    AttentivePool,
    ClassifierKind,
    ClipBranch,
    Encoder,
    Projection,
    make_classifier,
    make_projection,
    present,
    project,
    renamed,
    unmasked,
    visible,
)
from pipeline.model.base import FusionFactory, FusionModel, check_dropout, check_slots
from pipeline.model.batch import Batch, Prediction

ORDER = ("speech", "text", "prosody", "spectral")  # of the vectors before the classifier
PARTNERS = ("speech", "text")
MOST_LAYERS = 3
NEGATIVE_SLOPE = 0.2  # of the LeakyReLU in graph attention


class Gat(FusionModel):
    """Graph attention, co-attention, encoder and attentive pooling of the MDAT code.

    With one of speech and text alone there is no exchange.

    Args:
        specs: Streams by slot; any of text, speech, prosody (bins, or frames), spectral (averaged).
        classes: Number of classes K.
        d_model: Width D of frames and vectors.
        gat_layers: Graph-attention layers of a modality, 1 to 3.
        heads: Heads of each graph attention; their number does not change the parameter count.
        co_attention: Whether modalities attend to each other at all.
        attention: Attention between speech and text: `co` shares one affinity, `multihead`
            is cross-attention with `encoder_heads` heads.
        encoder_heads: Heads of the encoder layer.
        f0_embedding: Width of the embedding of F0 bins: 512 in the public configurations.
        f0_channels: Channels of a convolution over real-valued prosody ahead of its projection, 256
            for the paper's "raw F0"; None: it is projected as it is.
        f0_attention: Whether prosody has graph attention, co-attention with speech and text, and an
            encoder, or is averaged after its projection.
        classifier: `plain` (one hidden layer) or `swiglu`.
        hidden: Hidden width of the classifier; None: as wide as its input. The public
            configurations take half of that for `swiglu`: 768 with F0.
        dropout: Dropout rate in projections, attention of the encoder, feed-forward and classifier.
        mask_padding: False counts padding as frames, as the public code does.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: Width = 512,
        gat_layers: Annotated[int, Interval(ge=1, le=MOST_LAYERS)] = 1,
        heads: Heads = 1,
        co_attention: bool = True,
        attention: Literal["co", "multihead"] = "co",
        encoder_heads: Heads = 8,
        f0_embedding: Width = 512,
        f0_channels: Width | None = None,
        f0_attention: bool = False,
        classifier: ClassifierKind = "plain",
        hidden: Width | None = None,
        dropout: Share = 0.5,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        check_slots("gat", specs, ORDER, binned=("prosody",))
        check_dropout("gat", dropout)
        if not 1 <= gat_layers <= MOST_LAYERS:
            raise ParamsError(f"gat: gat_layers {gat_layers}; expected 1 to {MOST_LAYERS}")
        if encoder_heads < 1 or d_model % encoder_heads:
            raise ParamsError(
                f"gat: encoder_heads {encoder_heads}; expected a divisor of d_model, {d_model}"
            )
        self.mask_padding = mask_padding
        frames = [slot for slot in ORDER if slot in specs and slot != "spectral"]
        attending = [slot for slot in frames if slot != "prosody" or f0_attention]
        partners = [slot for slot in attending if slot in PARTNERS] if co_attention else []
        if f0_channels is not None:
            _check_values(specs, f0_channels)
        self.fronts = nn.ModuleDict(
            {
                slot: ContourBranch(specs[slot].dim, f0_channels, d_model, dropout)
                if slot == "prosody" and f0_channels is not None
                else make_projection(specs[slot], d_model, dropout, embed_width=f0_embedding)
                for slot in frames
            }
        )
        self.graphs = nn.ModuleDict({s: Graphs(d_model, gat_layers, heads) for s in attending})
        self.exchange: CoAttention | MultiheadExchange | None = None
        self.f0_exchange: CoAttention | None = None
        if len(partners) == len(PARTNERS) and attention == "co":
            self.exchange = CoAttention(d_model)
        elif len(partners) == len(PARTNERS):
            self.exchange = MultiheadExchange(d_model, encoder_heads, dropout)
        if partners and "prosody" in attending:
            self.f0_exchange = CoAttention(d_model)
        self.encoders = nn.ModuleDict(
            {slot: Encoder(d_model, encoder_heads, dropout) for slot in attending}
        )
        self.pools = nn.ModuleDict({slot: AttentivePool(d_model) for slot in attending})
        self.spectral: ClipBranch | None = None
        if "spectral" in specs:
            self.spectral = ClipBranch(specs["spectral"].dim, d_model, dropout)
        self.classifier = make_classifier(
            classifier, d_model * len(specs), hidden, classes, dropout
        )

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        fronts = {
            slot: self._masked(project(front, batch.streams[slot]))
            for slot, front in self.fronts.items()
        }
        mixed = self.mix({slot: graph(fronts[slot]) for slot, graph in self.graphs.items()})
        vectors = [
            self.pools[slot](self.encoders[slot](mixed[slot])) if slot in mixed else stream.mean()
            for slot, stream in fronts.items()
        ]
        if self.spectral is not None:
            vectors.append(self.spectral(self._masked(batch.streams["spectral"]).mean()))
        return Prediction(self.classifier(torch.cat(vectors, dim=1)))

    def mix(self, graphs: Mapping[str, Stream]) -> dict[str, Stream]:
        """Streams after modalities attended to each other, all to the others' graph outputs."""
        mixed = dict(graphs)
        if self.exchange is not None:
            mixed["speech"], mixed["text"] = self.exchange.exchange(
                graphs["speech"], graphs["text"]
            )
        if self.f0_exchange is not None:
            # Graph outputs, not `mixed`: in the public code F0 attends to streams before they mix.
            others = [graphs[slot] for slot in PARTNERS if slot in graphs]
            mixed["prosody"] = self.f0_exchange.collect(graphs["prosody"], others)
        return mixed

    def _masked(self, stream: Stream) -> Stream:
        return stream if self.mask_padding else unmasked(stream)


class ContourBranch(nn.Module):
    """Convolution over time and `Projection` of an F0 contour: `[B, T, width]` to `[B, T, D]`.

    The MDAT paper says of its "raw F0" that a 1-D CNN of kernel 3, stride 1 and 256 channels reads
    it. One layer, zero padding by one frame, ReLU, and the projection that embeddings of bins pass
    are assumed.

    Args:
        width: Width of a frame: 1 in Hz, 2 with voicing.
        channels: Channels of the convolution.
        d_model: Width D of the result.
        dropout: Dropout rate after the projection.
    """

    def __init__(self, width: int, channels: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, channels, kernel_size=3, padding=1)
        self.projection = Projection(channels, d_model, dropout)

    def forward(self, values: Tensor) -> Tensor:
        """`[B, T, D]`; padding must hold zeros, as that of a stream does."""
        channels = self.convolution(values.transpose(1, 2)).relu()
        projected: Tensor = self.projection(channels.transpose(1, 2))
        return projected


def _check_values(specs: Mapping[str, StreamSpec], channels: int) -> None:
    spec = specs.get("prosody")
    if spec is None or spec.bins is not None:
        given = "no prosody slot" if spec is None else f"{spec.bins} bins in the prosody slot"
        raise ParamsError(
            f"gat: f0_channels {channels} with {given}; expected real values there: an entry of "
            "kind f0 with `values: hz` or `log_hz`, or `f0_channels: null`"
        )


class Graphs(nn.ModuleList):
    """Stack of graph-attention layers with ELU between them, `[B, T, D]` to `[B, T, D]`.

    Args:
        d_model: Width D of input and result.
        layers: Number of layers; the paper's code has one, hence no activation.
        heads: Heads of each layer.
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


class GraphAttention(nn.Module):
    """Graph attention over the frames of an utterance, a fully connected graph with self-loops.

    h = W x; e_ij = LeakyReLU_0.2(a . [h_i; h_j]); alpha = softmax_j(e); y_i = sum_j alpha_ij h_j,
    without bias, residual or activation (Velickovic et al. 2018, arXiv 1710.10903, equations 1-4;
    MDAT's code has one head).

    With a = [a_1; a_2] the product a . [h_i; h_j] is s_i + t_j, where s_i = a_1 . h_i and
    t_j = a_2 . h_j, so that the tensor of all pairs `[B, T, T, 2 D]` is never made. Memory is taken
    by scores and weights, `[B, H, T, T]` each, which are kept for the backward pass. For 30 s of
    Whisper (T = 1500), D = 512 and one head that is 9 MB each, where the pairs would take 9.2 GB.

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
        self.score = nn.Parameter(torch.empty(heads, 2 * (d_model // heads)))  # a = [a_1; a_2]
        nn.init.kaiming_uniform_(self.score, a=math.sqrt(5))  # what a linear layer starts with

    def nodes(self, stream: Stream) -> Tensor:
        """h: `[B, H, T, D / H]`."""
        transformed: Tensor = self.transform(stream.values)
        # [B, T, D] -> [B, T, H, D / H] -> [B, H, T, D / H].
        split = transformed.view(*transformed.shape[:2], self.heads, -1)
        return split.transpose(1, 2)

    def weights(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """alpha: `[B, H, T, T]`, summing to 1 over the last axis, the neighbours j."""
        own, other = self.score.chunk(2, dim=1)
        receiving = torch.einsum("bhtf,hf->bht", nodes, own)
        neighbour = torch.einsum("bhtf,hf->bht", nodes, other)
        # Hiding t_j hides column j of the scores: s_i - inf = -inf, and LeakyReLU keeps it.
        neighbour = neighbour.masked_fill(~visible(mask)[:, None], -torch.inf)
        scores = receiving[..., :, None] + neighbour[..., None, :]
        # In place, as the result also tells the sign of the input: one `[B, H, T, T]` less.
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
        """Result of gathering in both directions, without the residual."""
        affinity = self.affinity(a, b)
        return self.gather(affinity, b), self.gather(affinity.transpose(1, 2), a)

    def exchange(self, a: Stream, b: Stream) -> tuple[Stream, Stream]:
        """Both streams with the residual: a + what it gathers from b, and the reverse."""
        from_b, from_a = self(a, b)
        return Stream(a.values + from_b, a.mask), Stream(b.values + from_a, b.mask)

    def collect(self, own: Stream, others: list[Stream]) -> Stream:
        """Update of a third modality: own + sum over others of (own + what it gathers from that).

        The public code does so for F0: with audio and text that is three times F0 itself, and both
        attentions share their weights.
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
        """Both streams after attention."""
        return self.first(a, b), self.second(b, a)


def from_public(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `Gat` from one of the public code's MDAT models (docs/papers.md).

    The CED network in models with a spectral branch is left out: here its vectors come from the
    cache, so fine-tuned CED weights belong into a backbone.
    """
    names: dict[str, str | None] = {
        "f0_embedding": "fronts.prosody.embedding",
        "f0_proj": "fronts.prosody.projection",
        "co_attention.proj_audio": "exchange.first",
        "co_attention.proj_text": "exchange.second",
        "mda_audio_to_text": "exchange.first.attention.attention",
        "mda_text_to_audio": "exchange.second.attention.attention",
        "f0_co_attention.proj_audio": "f0_exchange.first",
        "f0_co_attention.proj_text": "f0_exchange.second",
        "mel_spec_encoder.proj_layer": "spectral",
        "mel_spec_encoder": None,
        **CLASSIFIER_NAMES,
    }
    for side, block in (("audio", "first"), ("text", "second")):
        names[f"{side}_fc_after_cross"] = f"exchange.{block}.linear"
        names[f"{side}_ln_after_cross"] = f"exchange.{block}.norm"
    for public, slot in (("audio", "speech"), ("text", "text"), ("f0", "prosody")):
        # `f0_proj` has its place above, beside the embedding.
        names.setdefault(f"{public}_proj", f"fronts.{slot}")
        names[f"{public}_graph_attn.W"] = f"graphs.{slot}.0.transform"
        names[f"{public}_graph_attn.a.weight"] = f"graphs.{slot}.0.score"
        names[f"{public}_trans_enc"] = f"encoders.{slot}.layer"
        names[f"{public}_attentive_pooling_proj"] = f"pools.{slot}.score"
    return renamed(weights, names)


build: FusionFactory = Gat
