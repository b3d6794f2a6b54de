"""The training protocol: the keys of `train` in params.yaml as one record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from features.arguments import problems, refuse
from features.ranges import Amount, Count, Interval, Positive, Prefix, Probability, Rate, Share

Target = Literal["classes", "votes", "attributes", "gender"]
OF_CLASSES = ("accuracy", "uar", "macro_f1", "weighted_f1")
OF_VOTES = ("jsd", "kld", "multilabel_f1")
OF_ATTRIBUTES = ("ccc",)  # and `ccc_<attribute>`
JOINT = "joint"
LOSS = "loss"  # the loss of the validation split, which any targets have
LAST = "last"  # no choice: the last epoch, whatever the validation split says
FALLING = ("jsd", "kld", LOSS)  # of which lower is better
Monitor = (
    Literal["accuracy", "uar", "macro_f1", "weighted_f1", "ccc"]
    | Literal["jsd", "kld", "multilabel_f1", "joint", "loss", "last"]
    | Annotated[str, Prefix("ccc_")]
)
UNCUT = ("ccc", "ccc_mse")  # losses of attributes that are no mean over rows
FEWEST_ROWS = 8  # of a batch with one of them: below, its gradient is mostly noise
GENDER_WEIGHT = 0.1
ADDED = ("plateau_factor", "plateau_patience")
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
        schedule: `plateau` lowers the rate when the validation loss has stopped falling; `cosine`
            lowers it step by step to `lr_end` at the last one of `epochs`.
        plateau_factor: Factor of the rate at a plateau.
        plateau_patience: Epochs without a lower validation loss that leave the rate as it is.
        warmup_steps: Optimiser steps of a linear warm-up, with any schedule.
        lr_start: Rate at the first step of the warm-up.
        lr_end: Rate at the end of a cosine.
        loss: Cross-entropy or focal; `weighted_`: each class by N / n_c of the training split;
            `balanced_`: by the effective number of its items; `logit_adjusted_`: with logits
            shifted by the classes' shares.
        focal_alpha: Factor of the focal loss.
        focal_gamma: Exponent of the focal loss.
        label_smoothing: Share of each label that is spread over all classes.
        sampler: Utterances of an epoch: each once, or drawn with replacement by class
            (`pipeline.training.sampling`).
        seqaug: Probability of SeqAug for the speech and the text of an utterance.
        mixup: Alpha of mixup; 0: none. With mixup the loss is a binary one for each class.
        clip_norm: Largest norm of the gradient.
        monitor: Metric of the validation split by which the kept epoch is chosen, or its loss;
            `last`: the last of `epochs` is kept.
        patience: Epochs without a better `monitor` before training stops.
        targets: What a model learns: classes, shares of raters' votes, attributes, the speaker's
            gender.
        attributes: Attributes that are learnt; none named: all of the corpus.
        attribute_loss: Loss of attributes: 1 - CCC, which is no mean over rows, squared, absolute
            or Huber's, or the first two together.
        attribute_link: From an output to an attribute where [0, 1] is the scale.
        vote_loss: Loss of vote shares: cross-entropy, the same as a divergence, with weights of
            classes in two ways, with shifted logits, focal, or a binary one for each class.
        vote_shares: Divisor of the votes for a class: those for any class, or all raters.
        secondary_weight: Weight of a rater who names a class beside another choice.
        votes_missing: Whether utterances without votes have no vote target, or their class.
        task_weights: Factor of each target's loss; by default 1, and 0.1 of the gender.
        weighting: Whether factors are fixed, or trained (weighting by uncertainty).
        estimator: Training value of an attribute from what each rater said; `mean` is the corpus's
            own. Validation and test are always scored on the corpus's own.
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
    plateau_factor: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    plateau_patience: Amount = 2
    warmup_steps: Amount = 0
    lr_start: Rate = 0.0
    lr_end: Rate = 0.0
    loss: Literal[
        "ce", "weighted_ce", "focal", "weighted_focal", "balanced_ce", "logit_adjusted_ce"
    ] = "ce"
    focal_alpha: Positive = 0.5
    focal_gamma: Rate = 2.0
    label_smoothing: Share = 0.0
    sampler: Literal["none", "balanced", "to_uniform", "to_distribution"] = "none"
    seqaug: Probability = 0.0
    mixup: Rate = 0.0
    clip_norm: Positive = 1.0
    monitor: Monitor = "weighted_f1"
    patience: Count = 5
    targets: tuple[Target, ...] = ("classes",)
    attributes: tuple[str, ...] = ()
    attribute_loss: Literal["ccc", "mse", "mae", "huber", "ccc_mse"] = "ccc"
    attribute_link: Literal["identity", "sigmoid"] = "identity"
    vote_loss: Literal[
        "soft_ce",
        "kl",
        "balanced_soft_ce",
        "weighted",
        "logit_adjusted",
        "focal",
        "multilabel_bce",
    ] = "soft_ce"
    vote_shares: Literal["classes", "raters"] = "classes"
    secondary_weight: Probability = 0.0
    votes_missing: Literal["drop", "label"] = "drop"
    task_weights: Mapping[str, Positive] = field(default_factory=dict, hash=False)
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    estimator: Literal["mean", "median", "ewe"] = "mean"

    def __post_init__(self) -> None:
        for name in ("betas", "targets", "attributes"):  # lists in YAML
            object.__setattr__(self, name, tuple(getattr(self, name)))
        refuse(problems(TrainParams, vars(self), "train"))
        refuse([f"train.{line}" for line in _contradictions(self)])

    @property
    def classes_alone(self) -> bool:
        """Whether a model learns one class an utterance and nothing else."""
        return self.targets == ("classes",)

    def weight(self, target: str) -> float:
        """Factor of a target's loss."""
        default = GENDER_WEIGHT if target == "gender" else 1.0
        return float(self.task_weights.get(target, default))

    def to_dict(self) -> dict[str, Any]:
        """Field `train` of run.json: with classes alone, what is about other targets is left out.

        So are defaults of settings that were constants once. Runs of older releases have the same
        keys then.
        """
        defaults = {each.name: each.default for each in fields(self) if each.name in ADDED}
        held = vars(self).items()
        values = {k: v for k, v in held if k not in defaults or v != defaults[k]}
        if self.classes_alone:
            later = [each.name for each in fields(self)]
            for name in later[later.index("targets") :]:
                del values[name]
        return values


def monitors_of(targets: Collection[str], attributes: Collection[str]) -> list[str]:
    """Metrics of the validation split that targets have, in the order of history.csv.

    Args:
        targets: What is learnt.
        attributes: Names of the attributes.

    >>> monitors_of(["attributes"], ["arousal"])
    ['ccc', 'ccc_arousal']
    """
    scores_classes = "classes" in targets or "votes" in targets
    found = [*OF_CLASSES] if scores_classes else []
    found += OF_VOTES if "votes" in targets else ()
    if "attributes" in targets:
        found += [*OF_ATTRIBUTES, *(f"ccc_{name}" for name in attributes)]
        found += [JOINT] if scores_classes else []
    return found


def _contradictions(params: TrainParams) -> Iterator[str]:
    """Settings that contradict each other, as `key: problem`."""
    targets = params.targets
    learnt = [target for target in targets if target != "gender"]
    if not learnt or len(set(targets)) < len(targets):
        yield (
            f"targets: given {list(targets)}; expected classes, votes or attributes among them, "
            "each once"
        )
        return
    yield from _monitor_problems(params)
    if len(set(params.attributes)) < len(params.attributes):
        yield f"attributes: given {list(params.attributes)}; expected each once"
    if "attributes" in targets and params.attribute_loss in UNCUT and params.mixup > 0:
        yield (
            f"mixup: given {params.mixup} with the loss {params.attribute_loss} of attributes, "
            "which blended utterances would lower by their smaller spread; expected 0, or "
            "`attribute_loss: mse`"
        )
    if params.sampler != "none" and "classes" not in targets:
        yield (
            f"sampler: given {params.sampler!r} with the targets {list(targets)}; expected none, "
            "since samplers draw by class: set `sampler: none`"
        )
    if "votes" in targets:
        yield from _vote_problems(params)
    unknown = sorted(set(params.task_weights) - set(targets))
    if unknown:
        yield f"task_weights: given {unknown[0]!r}; expected some of the targets {list(targets)}"
    if params.weighting == "uncertainty" and (len(targets) < 2 or params.task_weights):
        given = "task_weights beside it" if params.task_weights else f"targets {list(targets)}"
        yield (
            f"weighting: given 'uncertainty' with {given}; expected two targets or more, whose "
            "factors are trained, and no others: set `weighting: fixed`"
        )


def _vote_problems(params: TrainParams) -> Iterator[str]:
    binary = params.vote_loss == "multilabel_bce"
    if binary and "classes" in params.targets:
        yield (
            "vote_loss: given 'multilabel_bce' beside the target classes, which share their "
            "outputs: sigmoids of each class and one softmax over all cannot both be right; "
            "expected another loss, or `targets: [votes]`"
        )
    if params.vote_shares == "raters" and not binary:
        yield (
            f"vote_shares: given 'raters' with the loss {params.vote_loss!r}, which needs shares "
            "that sum to 1; expected 'classes', or `vote_loss: multilabel_bce`"
        )
    if params.mixup > 0 and "classes" in params.targets:
        yield (
            f"mixup: given {params.mixup} with the targets classes and votes, which share their "
            "outputs: of blended classes the loss is a binary one, of votes one softmax over all; "
            "expected 0, or one of the two targets"
        )


def _monitor_problems(params: TrainParams) -> Iterator[str]:
    """Refuse a metric of another target; which attributes there are may not be known yet."""
    named = params.attributes
    known = [*monitors_of(params.targets, named), LOSS, LAST]
    of_any = params.monitor.startswith("ccc_") and "ccc" in known and not named
    if params.monitor not in known and not of_any:
        yield (
            f"monitor: given {params.monitor!r} with the targets {list(params.targets)}; expected "
            f"one of {known}" + (" or ccc_<attribute>" if "ccc" in known and not named else "")
        )
