"""LPGNet: parallel attention and gated fusion over the turns of a dialogue (He & Xiao 2025).

Text and audio of each turn attend to themselves and to each other in four parallel paths; gates
refine each path, another gate mixes the modalities, and student heads on single modalities are
distilled from the whole. No speaker is among the inputs. Reference: arXiv 2508.08925, whose code
was never released and whose equations are reconstructed (docs/papers.md, specs.md §3.2). 18,313,740
parameters for two slots of 768 and 4 classes, 18,307,588 without the student heads.

The paper's variants: Table 3 is `inter: false`, `intra: false`, `ffn: false`, both gates `false`,
or a slot that is `none`; its grid of losses is `gamma_task`, `gamma_ce`, `gamma_kl`; LPGNet (Frame)
is `level: frame` with backbones that give frames.

Notation: H `hidden`, R_m `refined`, R `fused`, E `logits`, E_m `extras`, gammas 1-3 `gamma_task`,
`gamma_ce`, `gamma_kl`. A path `x_y` has keys and values from x, queries and residual from y.
Legend: B batch, N turns (frames), D width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from features.errors import ParamsError
from features.ranges import Count, Heads, Interval, Multiple, Rate, Share, Width
from features.stream import Stream, StreamSpec
from pipeline.batch import Batch, Prediction
from pipeline.fusion._lpgnet_layers import (
    AttentionPath,
    GlobalContext,
    GlobalContextKind,
    MaskedAttention,
    MultimodalGate,
    UnimodalGate,
    distillation,
    feed_forward,
    sinusoids,
)
from pipeline.fusion._model import FusionFactory, FusionModel, check_slots

SLOTS = ("text", "speech")


class LPGNet(FusionModel):
    """LPGNet over dialogues of pooled vectors, or over the frames of single utterances.

    A modality alone has no inter paths, no multimodal gate, and no student heads, since there is no
    more knowledgeable teacher; its loss is gamma_task * L_task.

    Args:
        specs: Streams by slot; text, speech.
        classes: Number of classes K.
        d_model: Width D.
        ffn_mult: Hidden width of the feed-forward part as a multiple of D (the paper: 2 or 4).
        heads: Attention heads.
        qkv_proj: Whether attention has its own linear maps (the paper names none).
        global_context: `pooled` over positions, or at each position of the `sequence` (eq. 6).
        positional: `sinusoidal` adds positions to H (SDT does; the paper mentions none).
        level: `dialogue`: positions are turns; `frame`: they are tokens and frames of an utterance.
        frames_max: With `level: frame`, tokens or frames that are used, from the first.
        inter: Whether modalities attend to each other.
        intra: Whether modalities attend to themselves.
        ffn: Whether paths have the feed-forward part.
        unimodal_gate: Whether paths are gated (eq. 9-11).
        multimodal_gate: Whether a gate mixes the modalities (eq. 13); else they weigh the same.
        gamma_task: Weight of the loss of the fused prediction.
        gamma_ce: Weight of the student heads' loss against the labels.
        gamma_kl: Weight of their divergence from the fused prediction.
        tau: Temperature of that divergence.
        detach_teacher: Whether the fused prediction gets no gradient from it.
        dropout: Rate in the feed-forward part and the student heads.
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
        _check_widths(specs, d_model=d_model, heads=heads, ffn_mult=ffn_mult, frames_max=frames_max)
        _check_rates(gamma_task, gamma_ce, gamma_kl, tau, dropout)
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
        """Logits `[B, N, K]` of turns or, by frames, `[B, K]`; `extras` has the students'."""
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

        Turns whose label is -1 (padding) are left out of every term. With `level: frame` labels may
        also be shares `[B, K]` (mixup).
        """
        assert batch.labels is not None
        labels = batch.labels.flatten() if self.unit == "dialogue" else batch.labels
        scored = (
            labels >= 0 if labels.ndim == 1 else torch.ones_like(labels[:, 0], dtype=torch.bool)
        )
        labels = labels[scored]
        task, ce, kl = self.gammas
        whole = prediction.logits.flatten(0, -2)[scored]
        teacher = whole.detach() if self.detach_teacher else whole
        total: Tensor = task * self.criterion(whole, labels)  # equation 17
        for logits in prediction.extras.values():
            student = logits.flatten(0, -2)[scored]
            total = total + ce * self.criterion(student, labels)  # equation 20
            total = total + kl * distillation(teacher, student, self.tau)  # equation 21
        return total  # equation 22

    def encode(self, slot: str, stream: Stream) -> Stream:
        """H_m `[B, N, D]`: a convolution of kernel 1 without bias, equations 1 and 2."""
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
        """What the heads classify: every turn, or the mean over the frames."""
        return stream.values if self.level == "dialogue" else stream.mean()


def _sources(used: Sequence[str], *, inter: bool, intra: bool) -> dict[str, list[str]]:
    """By slot the slots that it attends to, itself first."""
    sources = {
        slot: [slot] * intra + [other for other in used if other != slot and inter] for slot in used
    }
    if not all(sources.values()):
        raise ParamsError(
            f"lpgnet: inter {inter}, intra {intra} with the slots {list(used)} leave nothing to "
            "attend to; set one to true (with one slot: intra)"
        )
    return sources


def _check_widths(specs: Mapping[str, StreamSpec], **sizes: int) -> None:
    binned = [slot for slot, spec in specs.items() if spec.bins is not None]
    if binned:
        raise ParamsError(f"lpgnet: the {binned[0]} slot holds bins; expected real-valued vectors")
    for name, size in sizes.items():
        if size < 1:
            raise ParamsError(f"lpgnet: {name} {size}; expected at least 1")
    if sizes["d_model"] % sizes["heads"]:
        raise ParamsError(
            f"lpgnet: d_model {sizes['d_model']}, heads {sizes['heads']}; expected a multiple of "
            "heads"
        )


def _check_rates(task: float, ce: float, kl: float, tau: float, dropout: float) -> None:
    for name, rate in (("gamma_task", task), ("tau", tau)):
        if not 0 < rate < math.inf:
            raise ParamsError(f"lpgnet: {name} {rate}; expected a finite number above 0")
    for name, rate in (("gamma_ce", ce), ("gamma_kl", kl)):
        if not 0 <= rate < math.inf:
            raise ParamsError(f"lpgnet: {name} {rate}; expected a finite number, at least 0")
    if not 0 <= dropout < 1:
        raise ParamsError(f"lpgnet: dropout {dropout}; expected 0 <= dropout < 1")


build: FusionFactory = LPGNet
