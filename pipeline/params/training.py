"""The training protocol: the keys of `train` in params.yaml as one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from features.arguments import problems, refuse
from features.ranges import Amount, Count, Interval, Positive, Probability, Rate, Share

Monitor = Literal["accuracy", "uar", "macro_f1", "weighted_f1"]
LearningRate = Annotated[float, Interval(gt=0, le=1000)]


@dataclass(frozen=True)
class TrainParams:
    """Settings of a training.

    Attributes:
        epochs: Largest number of passes over the training split.
        batch_size: Utterances (dialogues) per batch.
        accumulate: Batches per optimiser step.
        optimizer: AdamW, or Adam with L2 regularisation.
        betas: Decay rates of the optimiser's means of gradients and of their squares.
        eps: Term added to the optimiser's denominator.
        lr: Learning rate at the start, or at the end of the warm-up.
        weight_decay: Weight decay, decoupled for AdamW.
        schedule: `plateau` halves the rate at the third epoch without a lower validation loss;
            `cosine` lowers it step by step to `lr_end` at the last one of `epochs`.
        warmup_steps: Optimiser steps of a linear warm-up, with any schedule.
        lr_start: Rate at the first step of the warm-up.
        lr_end: Rate at the end of a cosine.
        loss: Cross-entropy or focal; `weighted_`: each class by N / n_c of the training split.
        focal_alpha: Factor of the focal loss.
        focal_gamma: Exponent of the focal loss.
        label_smoothing: Share of each label that is spread over all classes.
        sampler: Utterances of an epoch: each once, or drawn with replacement by class
            (`pipeline.training.sampling`).
        seqaug: Probability of SeqAug for the speech and the text of an utterance.
        mixup: Alpha of mixup; 0: none. With mixup the loss is a binary one for each class.
        clip_norm: Largest norm of the gradient.
        monitor: Metric of the validation split by which the kept epoch is chosen.
        patience: Epochs without a better `monitor` before training stops.
    """

    epochs: Count = 20
    batch_size: Count = 8
    accumulate: Count = 1
    optimizer: Literal["adamw", "adam"] = "adamw"
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Annotated[float, Interval(ge=1e-30, le=1)] = 1e-8
    lr: LearningRate = 5e-5
    weight_decay: Rate = 0.01
    schedule: Literal["plateau", "constant", "cosine"] = "plateau"
    warmup_steps: Amount = 0
    lr_start: Rate = 0.0
    lr_end: Rate = 0.0
    loss: Literal["ce", "weighted_ce", "focal", "weighted_focal"] = "ce"
    focal_alpha: Positive = 0.5
    focal_gamma: Rate = 2.0
    label_smoothing: Share = 0.0
    sampler: Literal["none", "balanced", "to_uniform", "to_distribution"] = "none"
    seqaug: Probability = 0.0
    mixup: Rate = 0.0
    clip_norm: Positive = 1.0
    monitor: Monitor = "weighted_f1"
    patience: Count = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # a list in YAML
        refuse(problems(TrainParams, vars(self), "train"))
