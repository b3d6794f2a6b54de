"""LPGNet: parallel attention and gated fusion over the turns of a dialogue (He & Xiao 2025).

Text and audio of each turn attend to themselves and to each other in four parallel paths; gates
refine each path, another gate mixes the modalities, and student heads on single modalities are
distilled from the fused prediction. Speakers are no input. Reference: arXiv 2508.08925, whose code
was never released and whose equations are reconstructed (docs/papers.md, specs.md §3.2); its masked
keys and bias-free gates are conventions of SDT (arXiv 2310.20494). 18,313,740 parameters for two
slots of 768 and 4 classes, 18,307,588 without the student heads.

Table 3 of the paper is `inter: false`, `intra: false`, `ffn: false`, both gates `false`, or a slot
that is `none`; its grid of losses is `gamma_task`, `gamma_ce`, `gamma_kl`; LPGNet (Frame) is
`level: frame` with backbones that yield frames.

This is one paper in one file of more than 400 lines, so that its 22 equations are found in one
place: the model first, then its parts in the order of the equations.

Notation: H `hidden`, R_m `refined`, R `fused`, E `logits`, E_m `extras`, gammas 1-3 `gamma_task`,
`gamma_ce`, `gamma_kl`. A path `x_y` has keys and values from x, queries and residual from y.
Shapes: B batch, N positions (turns of a dialogue, or frames), D width, M modalities, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.errors import ParamsError
from features.ranges import Count, Heads, Interval, Multiple, Rate, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.model.base import FusionFactory, FusionModel, check_dropout, check_slots
from pipeline.model.batch import Batch, Prediction

SLOTS = ("text", "speech")
# Score of a key that is padding, equation 4. Finite, so that where all keys are padding the softmax
# is even and not NaN: such rows are set to zero or are not read.
MASKED = -1e10
GlobalContextKind = Literal["pooled", "sequence"]


class LPGNet(FusionModel):
    """LPGNet over dialogues of pooled vectors, or over the frames of single utterances.

    A modality alone has no inter paths, no multimodal gate and no student heads, as the fused
    prediction would be its own; its loss is gamma_task * L_task.

    Args:
        specs: Streams by slot; text, speech.
        classes: Number of classes K.
        d_model: Width D.
        ffn_mult: Hidden width of the feed-forward part as a multiple of D (the paper: 2 or 4).
        heads: Attention heads.
        qkv_proj: Whether attention has its own linear maps (the paper names none).
        global_context: `pooled` over positions, or at each position of the `sequence` (eq. 6).
        positional: `sinusoidal` adds positions to H (SDT does; the paper mentions none).
        level: Kind of the positions: `dialogue`, turns; `frame`, tokens or frames of an utterance.
        frames_max: Tokens or frames that are used, from the first, with `level: frame`.
        inter: Whether modalities attend to each other.
        intra: Whether modalities attend to themselves.
        ffn: Whether paths have the feed-forward part.
        unimodal_gate: Whether paths are gated (eq. 9-11).
        multimodal_gate: Whether a gate mixes the modalities (eq. 13); else they weigh the same.
        gamma_task: Weight of the loss of the fused prediction.
        gamma_ce: Weight of the student heads' loss against the labels.
        gamma_kl: Weight of the student heads' divergence from the fused prediction.
        tau: Temperature of the divergence.
        detach_teacher: Whether the divergence has no gradient for the fused prediction.
        dropout: Dropout rate in the feed-forward part and the student heads.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: Width = 768,
        ffn_mult: Multiple = 2,
        heads: Heads = 1,
        qkv_proj: bool = False,
        global_context: GlobalContextKind = "pooled",
        positional: Literal["none", "sinusoidal"] = "none",
        level: Literal["dialogue", "frame"] = "dialogue",
        frames_max: Count = 512,
        inter: bool = True,
        intra: bool = True,
        ffn: bool = True,
        unimodal_gate: bool = True,
        multimodal_gate: bool = True,
        gamma_task: Annotated[float, Interval(gt=0, le=1000)] = 1.5,
        gamma_ce: Rate = 1.0,
        gamma_kl: Rate = 0.3,
        tau: Annotated[float, Interval(ge=0.001, le=1000)] = 1.0,
        detach_teacher: bool = False,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        check_slots("lpgnet", specs, SLOTS)
        _check_sizes(d_model=d_model, heads=heads, ffn_mult=ffn_mult, frames_max=frames_max)
        _check_rates(gamma_task, gamma_ce, gamma_kl, tau)
        check_dropout("lpgnet", dropout)
        self.unit = "dialogue" if level == "dialogue" else "utterance"
        self.level, self.positional = level, positional
        self.frames_max = frames_max if level == "frame" else None
        self.gammas, self.tau = (gamma_task, gamma_ce, gamma_kl), tau
        self.detach_teacher = detach_teacher
        used = [slot for slot in SLOTS if slot in specs]
        self.sources = _sources(used, inter=inter, intra=intra)
        self.projections = nn.ModuleDict(
            {slot: nn.Linear(specs[slot].dim, d_model, bias=False) for slot in used}
        )
        self.paths = nn.ModuleDict(
            {
                f"{source}_{slot}": AttentionPath(
                    MaskedAttention(d_model, heads, project=qkv_proj),
                    GlobalContext(d_model, global_context),
                    feed_forward(d_model, ffn_mult * d_model, dropout) if ffn else nn.Identity(),
                    UnimodalGate(d_model) if unimodal_gate else nn.Identity(),
                )
                for slot in used
                for source in self.sources[slot]
            }
        )
        self.mergers = nn.ModuleDict(
            {slot: nn.Linear(len(self.sources[slot]) * d_model, d_model) for slot in used}
        )
        several = len(used) > 1
        self.mixer = MultimodalGate(d_model, learned=multimodal_gate) if several else None
        self.classifier = nn.Linear(d_model, classes)
        taught = used if several and (gamma_ce or gamma_kl) else []
        self.students = nn.ModuleDict(
            {
                slot: nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_model, classes))
                for slot in taught
            }
        )

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, N, K]` of turns or, by frames, `[B, K]`; `extras` holds the students'."""
        hidden = {slot: self.encode(slot, batch.streams[slot]) for slot in self.projections}
        refined = {slot: self.refine(slot, hidden) for slot in hidden}
        streams = list(refined.values())
        fused = streams[0] if self.mixer is None else self.mixer(streams)  # equations 13, 14
        logits = self.classifier(self._vectors(fused))  # equation 15; 16 is its softmax
        extras = {
            slot: head(self._vectors(refined[slot])) for slot, head in self.students.items()
        }  # equation 18
        return Prediction(logits, extras)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """gamma_1 L_task + gamma_2 sum L_CE + gamma_3 sum L_KL: equations 17-22.

        Turns that are padding are left out of every term.
        """
        task, ce, kl = self.gammas
        fused, truth = batch.scored(prediction.logits)
        teacher = fused.detach() if self.detach_teacher else fused
        total: Tensor = task * self.criterion(fused, truth)  # equation 17
        for logits in prediction.extras.values():
            student, _ = batch.scored(logits)
            total = total + ce * self.criterion(student, truth)  # equation 20
            total = total + kl * self._distilled(teacher, student)  # equation 21
        return total  # equation 22

    def _distilled(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Equation 21, for classes; for attributes the mean squared difference (our own)."""
        outputs = self.criterion.outputs
        if outputs is None:
            return distillation(teacher, student, self.tau)
        terms = []
        if outputs.classes:
            of_classes = outputs.of_classes
            terms.append(distillation(of_classes(teacher), of_classes(student), self.tau))
        if outputs.attributes:
            # A softmax over attributes would make each a share of the others.
            of_attributes = outputs.of_attributes
            terms.append(F.mse_loss(of_attributes(student.float()), of_attributes(teacher.float())))
        return torch.stack(terms).sum()

    def encode(self, slot: str, stream: Stream) -> Stream:
        """H_m `[B, N, D]`: a convolution of kernel 1 without bias, equations 1 and 2."""
        # A convolution of kernel 1 is a linear layer at each position: y_n = W x_n.
        if self.frames_max is not None:
            used = slice(self.frames_max)
            stream = Stream(stream.values[:, used], stream.mask[:, used])
        values = stream.values.masked_fill(~stream.mask[..., None], 0)
        hidden: Tensor = self.projections[slot](values)
        if self.positional == "sinusoidal":
            hidden = hidden + sinusoids(*hidden.shape[1:]).to(hidden)
        return Stream(hidden, stream.mask)

    def refine(self, slot: str, hidden: Mapping[str, Stream]) -> Stream:
        """R_m `[B, N, D]`: the paths to one modality, gated and merged, equations 3-12."""
        gated = [
            self.paths[f"{source}_{slot}"](hidden[slot], hidden[source])
            for source in self.sources[slot]
        ]
        merged = self.mergers[slot](torch.cat(gated, dim=-1))  # equation 12
        return Stream(merged, hidden[slot].mask)

    def _vectors(self, stream: Stream) -> Tensor:
        """Vectors that the heads classify: every turn, or the mean over the frames."""
        return stream.values if self.level == "dialogue" else stream.mean()


def sinusoids(length: int, width: int) -> Tensor:
    """Positions as sines (even columns) and cosines (odd ones), `[length, width]`.

    Source: Vaswani et al. 2017, arXiv 1706.03762, §3.5: wavelengths from 2 pi to 10,000 * 2 pi,
    geometrically spaced.
    """
    pairs = (width + 1) // 2
    # Position n has the angle n / 10000^(2 i / width) in the pair of columns i.
    rates = 10_000.0 ** (-torch.arange(pairs) * 2 / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


class AttentionPath(nn.Module):
    """One of the four parallel paths: attention, its two-stage enhancement and its gate.

    H = Q + G + F(O), where Q is the unprojected query, G the global context of O, and F a
    feed-forward network at each position; then the gate: equations 3-11. Without F (an ablation of
    the paper) O itself is added, so that the result of attention at single positions is kept.

    Args:
        attention: O of equations 3-5.
        context: G of equation 6.
        feed_forward: F of equation 7; an identity for the ablation.
        gate: Gate of equation 9; an identity for the ablation.
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
        """`[B, Nq, D]`; values at padding must not be read."""
        attended = self.attention(query, source)
        context = self.context(Stream(attended, query.mask))
        enhanced = query.values + context + self.feed_forward(attended)  # equation 8
        gated: Tensor = self.gate(enhanced)  # equations 10, 11
        return gated


class MaskedAttention(nn.Module):
    """Dot-product attention O = softmax(Q K^T / sqrt(d)) V over the keys that exist: eq. 3-5.

    The paper names no projections: queries and keys are the streams themselves. `project` adds
    linear maps with biases to Q, K and V (no output map). With several heads each attends with
    its own d = `D / heads` columns. Rows of padded queries are zero.

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
        # In float32, since float16 cannot hold MASKED, and bfloat16 is too coarse for a softmax.
        scores = (q @ k.transpose(-2, -1)).float() / q.shape[-1] ** 0.5  # equation 3
        scores = scores.masked_fill(~context.mask[:, None, None], MASKED)  # equation 4
        weights = scores.softmax(-1).to(v.dtype)  # equation 5
        attended: Tensor = (weights @ v).transpose(1, 2).flatten(2)
        return attended.masked_fill(~query.mask[..., None], 0)

    def _split(self, x: Tensor) -> Tensor:
        """`[B, N, D] -> [B, heads, N, D / heads]`."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class GlobalContext(nn.Module):
    """G = LeakyReLU(BN(Conv1x1(pool(O)))): equation 6.

    The paper compresses "the global context" and broadcasts it back, hence `pooled`: the mean over
    the positions that exist, one row for each dialogue. `sequence` reads the equation without
    pooling: every position that exists is a row. Statistics of the norm count no padding.
    """

    def __init__(self, d_model: int, kind: GlobalContextKind) -> None:
        super().__init__()
        self.kind = kind
        self.convolution = nn.Linear(d_model, d_model)  # kernel 1
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


class RowNorm(nn.BatchNorm1d):
    """BatchNorm over rows `[R, D]` that accepts a single row while training.

    One row (a last batch of one dialogue) has no variance; it is normalised by the running
    statistics, which it leaves unchanged.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[R, D]`."""
        if self.training and len(input) == 1:
            # `training` is False by default: running statistics are used and not updated.
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


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


class MultimodalGate(nn.Module):
    """R = sum of beta_m * R_m, where beta is a softmax across modalities: equations 13 and 14.

    beta_m = exp(W R_m) / sum_k exp(W R_k) for each feature of each position, with one bias-free W
    for all modalities. A modality that lacks a position (its frames end earlier) has no weight.

    Without `learned` all modalities weigh the same (an ablation of the paper).
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
        # In float32, for the same reasons as in `MaskedAttention`.
        scores = scores.float().masked_fill(~masks[..., None], MASKED)
        shares = scores.softmax(2).to(values.dtype)  # equation 13
        return Stream((shares * values).sum(2), masks.any(2))  # equation 14


def lengthen(x: Tensor, length: int) -> Tensor:
    """`[B, N, ...]` with zeros (False) behind its positions, up to `length`."""
    padding = x.new_zeros(x.shape[0], length - x.shape[1], *x.shape[2:])
    return torch.cat([x, padding], dim=1)


def distillation(teacher: Tensor, student: Tensor, tau: float) -> Tensor:
    """KL(softmax(teacher / tau) || softmax(student / tau)) in nats, mean over rows: equation 21.

    There is no factor tau^2. The caller leaves out rows of padding: a weight of zero afterwards
    would let through what is NaN there, as 0 * NaN is NaN.

    Args:
        teacher: `[R, K]` logits of the fused prediction.
        student: `[R, K]` logits of one modality.
        tau: Temperature.
    """
    expected = F.softmax(teacher.float() / tau, dim=-1)
    found = F.log_softmax(student.float() / tau, dim=-1)  # equation 19
    # torch takes the logarithms of the second distribution of KL as its first argument.
    return F.kl_div(found, expected, reduction="batchmean")


def _sources(used: Sequence[str], *, inter: bool, intra: bool) -> dict[str, list[str]]:
    """Slots that each slot attends to, itself first."""
    sources = {
        # A list times False is empty.
        slot: [slot] * intra + [other for other in used if other != slot and inter]
        for slot in used
    }
    if not all(sources.values()):
        raise ParamsError(
            f"lpgnet: inter {inter}, intra {intra} with the slots {list(used)} leave nothing to "
            "attend to; set one to true (with one slot: intra)"
        )
    return sources


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ParamsError(f"lpgnet: {name} {size}; expected at least 1")
    if sizes["d_model"] % sizes["heads"]:
        raise ParamsError(
            f"lpgnet: d_model {sizes['d_model']}, heads {sizes['heads']}; expected a multiple of "
            "heads"
        )


def _check_rates(task: float, ce: float, kl: float, tau: float) -> None:
    for name, rate in (("gamma_task", task), ("tau", tau)):
        if not 0 < rate < math.inf:
            raise ParamsError(f"lpgnet: {name} {rate}; expected a finite number above 0")
    for name, rate in (("gamma_ce", ce), ("gamma_kl", kl)):
        if not 0 <= rate < math.inf:
            raise ParamsError(f"lpgnet: {name} {rate}; expected a finite number, at least 0")


build: FusionFactory = LPGNet
