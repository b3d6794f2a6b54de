"""Contract of the fusion models, and the checks and parts that several papers share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from features.errors import ParamsError
from features.process.devices import moved
from features.stream import Stream, StreamSpec
from pipeline.model.batch import Batch, Prediction
from pipeline.model.losses.classes import Criterion, CrossEntropy

Unit = Literal["utterance", "dialogue"]
# Highest probability of modality dropout: near 1 hardly any draw leaves a modality to learn from.
MOST_DROPPED = 0.99


class FusionModel(nn.Module):
    """Base of the fusion models: `model(batch) -> Prediction` and `model.loss(prediction, batch)`.

    The loss belongs to the model, so that one with auxiliary losses needs no special case in the
    training loop. Constructors take `specs` (streams by slot), `classes` (number of outputs: of
    classes, and of attributes and genders if they are learnt), and keywords, which are the `args`
    of the model's entry in params.yaml.

    Attributes:
        unit: Kind of the rows of a batch.
        frames_max: Frames of an utterance that are used, from the first; None: all.
        scales_loss: Whether the loss is scaled before the backward pass, because gradients would
            vanish in float16.
        criterion: `criterion(outputs [R, O], truth)`, a scalar mean; both are those of
            `Batch.scored`. Training sets it from its protocol; it holds nothing that is saved.
    """

    unit: Unit = "utterance"
    frames_max: int | None = None
    scales_loss: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.criterion: Criterion = CrossEntropy()

    def forward(self, batch: Batch) -> Prediction:
        """Class scores of a batch."""
        raise NotImplementedError

    def streams(self, batch: Batch) -> dict[str, Stream]:
        """Streams of all slots; a model with live backbones computes them."""
        return dict(batch.streams)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """The criterion's mean over the batch."""
        loss: Tensor = self.criterion(*batch.scored(prediction.logits))
        return loss

    def frames_used(self, slot: str) -> int | None:  # noqa: ARG002  of one behind pooled slots
        """Frames of an utterance that are used in a slot, from the first; None: all."""
        return self.frames_max

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:  # noqa: ARG002  not needed here
        """Groups for the optimiser: `params`, and `lr_scale`, their rate as a multiple of `lr`."""
        return [{"params": list(self.parameters()), "lr_scale": 1.0}]


class FusionFactory(Protocol):
    """Type of `build` in the modules of `pipeline.fusion`: `build(specs, classes, **args)`."""

    def __call__(self, *args: Any, **options: Any) -> FusionModel:
        """Make a model for streams by slot and a number of classes."""
        ...


def check_slots(
    model: str,
    specs: Mapping[str, StreamSpec],
    allowed: Collection[str],
    *,
    binned: Collection[str] = (),
) -> None:
    """Refuse slots that are not `allowed`, bins in slots that are not `binned`, and no slot at all.

    Raises:
        ParamsError: With the name of the model and the slot.
    """
    extra = sorted(set(specs) - set(allowed))
    if extra:
        raise ParamsError(
            f"{model} has no place for the {extra[0]} slot; set `{extra[0]}: none` (it takes "
            f"{sorted(allowed)})"
        )
    if not specs:
        raise ParamsError(f"{model} has no slot filled; fill at least one of {sorted(allowed)}")
    wrong = [slot for slot, spec in specs.items() if spec.bins is not None and slot not in binned]
    if wrong:
        place = f" (bins go into the {' or '.join(binned)} slot)" if binned else ""
        raise ParamsError(
            f"{model}: the {wrong[0]} slot holds bins; expected real-valued frames{place}"
        )


def check_dropout(model: str, dropout: float) -> None:
    """Refuse a dropout rate outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise ParamsError(f"{model}: dropout {dropout}; expected 0 <= dropout < 1")


class ModalityDropout(nn.Module):
    """Zeroing of whole modalities of single utterances while training, never of all of them.

    Source: HERON's README ("sets a modality's entire feature representation to a zero vector",
    probability 0.2). It leaves open whether all may vanish at once: here that draw is repeated, so
    that a modality is kept with probability (1 - p) / (1 - p^M). Masks stay as they are.

    Args:
        probability: Probability p that a modality is zeroed, before draws are repeated.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability <= MOST_DROPPED:
            raise ParamsError(
                f"modality_dropout: given {probability}; expected 0 <= p <= {MOST_DROPPED}"
            )
        self.probability = probability

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Streams by slot, with the values of some utterances zeroed."""
        if not self.training or self.probability == 0 or len(streams) < 2:
            return dict(streams)
        first = next(iter(streams.values())).values
        # Drawn on the CPU, so that all devices zero the same modalities.
        keep = moved(self.draw(len(first), len(streams)), first.device)
        return {
            slot: Stream(stream.values * kept[:, None, None], stream.mask)
            for (slot, stream), kept in zip(streams.items(), keep.T, strict=True)
        }

    def draw(self, batch: int, modalities: int) -> Tensor:
        """`[B, M]` bool: which modalities each utterance keeps; at least one in every row."""
        keep = torch.rand(batch, modalities) >= self.probability
        while not bool(keep.any(1).all()):
            empty = ~keep.any(1)
            keep[empty] = torch.rand(int(empty.sum()), modalities) >= self.probability
        return keep
