"""What every backbone is: `prepare` on the CPU, `__call__` on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from features.corpus.utterance import Utterance
from features.process.devices import moved
from features.stream import Stream, StreamSpec


def content_of(utterance: Utterance, reads: Reads) -> str | None:
    """Hash of what a backbone would read of an utterance; None if it has nothing for it."""
    if reads == "asr":
        return utterance.asr_content
    return utterance.text_content if reads == "text" else utterance.audio_content


def lacks(utterance: Utterance, reads: Reads) -> bool:
    """Whether an utterance has nothing for a backbone: `content_of` would be None."""
    return (utterance.audio if reads == "audio" else utterance.words(reads)) is None


Reads = Literal["audio", "text", "asr", "nothing"]
CHARACTERS_A_SECOND = 15.0  # of English, spoken
AT_ONCE = 1000  # utterances whose notices are asked for together


@dataclass(frozen=True)
class Inputs:
    """What `prepare` hands to `__call__`.

    Attributes:
        ids: Utterances of the batch, B of them.
        tensors: By name; each with B as its first axis.
    """

    ids: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def between(self, start: int, stop: int) -> Self:
        """Utterances `start` to before `stop`, with the padding that they have."""
        tensors = {name: tensor[start:stop] for name, tensor in self.tensors.items()}
        return type(self)(self.ids[start:stop], tensors)

    def pin_memory(self) -> Self:
        """The same inputs in pages that a device can copy from while it computes."""
        return type(self)(self.ids, {name: t.pin_memory() for name, t in self.tensors.items()})

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return type(self)(self.ids, {name: moved(t, device) for name, t in self.tensors.items()})


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


class Networked:
    """Base of backbones with a `network`: pickled without it.

    The processes that prepare inputs get the front end alone; weights stay where they compute.
    """

    network: nn.Module

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network."""
        return {name: value for name, value in vars(self).items() if name != "network"}


class BackboneFactory(Protocol):
    """The type of `build` in each module of this folder."""

    def __call__(self, *args: Any, **options: Any) -> Backbone:
        """Make the backbone; its keywords are those of its entry in params.yaml."""
        ...


@dataclass
class Pooled:
    """A backbone whose frames are reduced to one vector: `mean` over time, or the `first`.

    Where the network's own mean is not that over the frames kept (padding that it takes in), the
    backbone has a method `pooled(inputs) -> Tensor [B, D]`, which is asked for the mean instead.
    """

    backbone: Backbone
    how: str
    spec: StreamSpec = field(init=False)

    def __post_init__(self) -> None:
        inner = self.backbone.spec
        self.spec = StreamSpec(dim=inner.dim, layers=inner.layers)
        self.reads = self.backbone.reads
        self.trainable = self.backbone.trainable

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """As the backbone's own."""
        return self.backbone.prepare(utterances)

    def __call__(self, inputs: Inputs) -> Stream:
        """One vector an utterance: values `[B, 1, D]`."""
        own_mean = getattr(self.backbone, "pooled", None)
        if self.how == "mean" and own_mean is not None:
            vector = own_mean(inputs)
            return Stream(vector[:, None], vector.new_ones(len(vector), 1, dtype=torch.bool))
        stream = self.backbone(inputs)
        vector = stream.mean() if self.how == "mean" else stream.first()
        return Stream(vector[:, None], stream.mask.any(1, keepdim=True))

    def provenance(self) -> dict[str, Any]:
        """The backbone's own; pooling is added to every backbone's by the cache."""
        return self.backbone.provenance()


def padded_seconds(backbone: Backbone, utterance: Utterance) -> float:
    """What an utterance takes in a batch: seconds of audio, or of the speech its text would be.

    A backbone that pads audio to windows says so by its attribute `window_seconds`.
    """
    seconds = utterance.seconds if backbone.reads == "audio" else None
    if seconds is None:
        seconds = len(utterance.words(backbone.reads) or "") / CHARACTERS_A_SECOND
    window = float(getattr(innermost(backbone), "window_seconds", 0.0))
    return max(1.0, math.ceil(seconds / window)) * window if window else seconds


def notices(backbone: Backbone, utterances: Iterable[Utterance]) -> Iterator[tuple[str, str]]:
    """What a backbone does not use of utterances that it does use: ids, each with a notice.

    A backbone that cuts its inputs has a method `noticed(utterances) -> list[str | None]`, which
    is cheap: it is asked about whole corpora, also where all features are there already.
    """
    tell = getattr(innermost(backbone), "noticed", None)
    if tell is None:
        return
    remaining = iter(utterances)
    while some := list(islice(remaining, AT_ONCE)):
        for utterance, notice in zip(some, tell(some), strict=True):
            if notice is not None:
                yield utterance.id, notice


def innermost(backbone: Backbone) -> Backbone:
    """The backbone itself, where its frames are pooled."""
    return backbone.backbone if isinstance(backbone, Pooled) else backbone


def module_of(backbone: Backbone) -> nn.Module | None:
    """The network inside a backbone (None for signal processing), to move, freeze or train it."""
    network = getattr(innermost(backbone), "network", None)
    return network if isinstance(network, nn.Module) else None
