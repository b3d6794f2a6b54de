"""What every backbone is: `prepare` on the CPU, `__call__` on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from features.manifest import Utterance
from features.stream import Stream, StreamSpec

Reads = Literal["audio", "text", "nothing"]


@dataclass(frozen=True)
class Inputs:
    """What `prepare` hands to `__call__`.

    Attributes:
        ids: Utterances of the batch, B of them.
        tensors: By name; each with B as its first axis.
    """

    ids: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        moved = {
            name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()
        }
        return type(self)(self.ids, moved)


class Backbone(Protocol):
    """A network (or signal processor) that turns utterances into a stream.

    Extraction and end-to-end training use the same object, so that features from the cache are
    those of the live backbone.
    """

    spec: StreamSpec
    reads: Reads
    trainable: bool

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Read, resample, tokenise and pad, on the CPU.

        Raises:
            UtteranceError: If one utterance cannot be used; the caller goes on without it.
        """
        ...

    def __call__(self, inputs: Inputs) -> Stream:
        """Compute the stream of `inputs`, on the device that they are on."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from: checkpoint, revision, hash of the weights, preprocessing."""
        ...


class BackboneFactory(Protocol):
    """The type of `build` in each module of this folder."""

    def __call__(self, *args: Any, **options: Any) -> Backbone:
        """Make the backbone; its keywords are those of its entry in params.yaml."""
        ...


@dataclass
class Pooled:
    """A backbone whose frames are reduced to one vector: `mean` over time, or the `first`."""

    backbone: Backbone
    how: str
    spec: StreamSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = StreamSpec(dim=self.backbone.spec.dim)
        self.reads = self.backbone.reads
        self.trainable = self.backbone.trainable

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """As the backbone's own."""
        return self.backbone.prepare(utterances)

    def __call__(self, inputs: Inputs) -> Stream:
        """One vector an utterance: values `[B, 1, D]`."""
        stream = self.backbone(inputs)
        vector = stream.mean() if self.how == "mean" else stream.first()
        return Stream(vector[:, None], stream.mask.any(1, keepdim=True))

    def provenance(self) -> dict[str, Any]:
        """The backbone's own; pooling is added to every backbone's by the cache."""
        return self.backbone.provenance()


def module_of(backbone: Backbone) -> nn.Module | None:
    """The network inside a backbone (None for signal processing), to move, freeze or train it."""
    inner = backbone.backbone if isinstance(backbone, Pooled) else backbone
    network = getattr(inner, "network", None)
    return network if isinstance(network, nn.Module) else None
