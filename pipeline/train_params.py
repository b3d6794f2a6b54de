"""The protocol of training: one record, the same keys in params.yaml."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from features.errors import ParamsError

Monitor = Literal["accuracy", "uar", "macro_f1", "weighted_f1"]


@dataclass(frozen=True)
class TrainParams:
    """How a model is trained.

    Attributes:
        epochs: Passes over the training split, at most.
        batch_size: Utterances (dialogues) a batch.
        accumulate: Batches an optimiser step.
        optimizer: AdamW, or Adam with L2.
        betas: Of the optimiser: decay of the means of gradients and of their squares.
        eps: Of the optimiser.
        lr: Learning rate at the start, or at the end of the warm-up.
        weight_decay: Decoupled for AdamW.
        schedule: `plateau` halves the rate at the third epoch without a lower validation loss;
            `cosine` lowers it step by step to `lr_end` at the last one of `epochs`.
        warmup_steps: Optimiser steps in which the rate first rises linearly; with any schedule.
        lr_start: Rate at the first of them.
        lr_end: Rate at the end of a cosine.
        loss: Cross-entropy or focal; `weighted_`: each class by N / n_c of the training split.
        focal_alpha: Factor of the focal loss.
        focal_gamma: Its exponent.
        label_smoothing: Share of each label that is spread over all classes.
        sampler: Which utterances an epoch has: each once, or drawn with replacement by class:
            `pipeline.sampling`.
        seqaug: Probability of SeqAug for the speech and the text of an utterance.
        mixup: Alpha of mixup, 0: none; the loss is then a binary one for each class.
        clip_norm: Largest norm of the gradient.
        monitor: Metric of the validation split by which the kept epoch is chosen.
        patience: Epochs without a better `monitor` before training stops.
    """

    epochs: int = 20
    batch_size: int = 8
    accumulate: int = 1
    optimizer: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    lr: float = 5e-5
    weight_decay: float = 0.01
    schedule: Literal["plateau", "constant", "cosine"] = "plateau"
    warmup_steps: int = 0
    lr_start: float = 0.0
    lr_end: float = 0.0
    loss: Literal["ce", "weighted_ce", "focal", "weighted_focal"] = "ce"
    focal_alpha: float = 0.5
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    sampler: Literal["none", "balanced", "to_uniform", "to_distribution"] = "none"
    seqaug: float = 0.0
    mixup: float = 0.0
    clip_norm: float = 1.0
    monitor: Monitor = "weighted_f1"
    patience: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # a list in YAML
        for name, (holds, expected) in _RANGES.items():
            given = getattr(self, name)
            values = given if isinstance(given, tuple) else (given,)
            if not all(holds(value) for value in values):
                raise ParamsError(f"train.{name}: given {given}; expected {expected}")


_Range = tuple[Callable[[float], bool], str]
_POSITIVE: _Range = (lambda x: 0 < x < math.inf, "a finite number above 0")
_NOT_NEGATIVE: _Range = (lambda x: 0 <= x < math.inf, "a finite number of 0 or more")
_PROBABILITY: _Range = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
_BELOW_ONE: _Range = (lambda x: 0 <= x < 1, "0 or more, and below 1")
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(("epochs", "batch_size", "accumulate", "lr", "eps"), _POSITIVE),
    **dict.fromkeys(("clip_norm", "patience", "focal_alpha"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "warmup_steps", "lr_start", "lr_end"), _NOT_NEGATIVE),
    **dict.fromkeys(("focal_gamma", "mixup"), _NOT_NEGATIVE),
    **dict.fromkeys(("betas", "label_smoothing"), _BELOW_ONE),
    "seqaug": _PROBABILITY,
}
