"""Interface of backbones: `prepare` on the CPU, `__call__` on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from features.backbone.layers import Layers
from features.corpus.utterance import Utterance
from features.process.devices import moved, page_locked
from features.stream import Stream, StreamSpec

Reads = Literal["audio", "text", "asr", "nothing"]  # what a backbone reads of an utterance
Statistic = Literal["mean", "first", "std", "mean_std"]  # of its frames, over time
Pooling = Literal["frames", Statistic]
Result = TypeVar("Result")
CHARACTERS_A_SECOND = 15.0  # of spoken English
NOTICED_AT_ONCE = 1000  # utterances in one call of a backbone's `noticed`


def content_of(utterance: Utterance, reads: Reads) -> str | None:
    """Hash of what a backbone would read of an utterance; None if that is missing."""
    if reads == "asr":
        return utterance.asr_content
    return utterance.text_content if reads == "text" else utterance.audio_content


def lacks(utterance: Utterance, reads: Reads) -> bool:
    """Whether an utterance lacks what a backbone reads, so that `content_of` would be None."""
    return (utterance.audio if reads == "audio" else utterance.words(reads)) is None


class Record:
    """What a network gave for a batch, in the order of its calls, for all entries of a pass.

    They call it equally often, with the same inputs: the first one computes, the others take its
    results.

    Args:
        layers: Hidden states that some entry takes; None of a network without layers.
    """

    def __init__(self, layers: Layers | None = None) -> None:
        self.layers = layers
        self._results: list[Any] = []
        self._place = 0

    def rewind(self) -> None:
        """Begin with the first call again, for the next entry."""
        self._place = 0

    def result(self, compute: Callable[[], Result]) -> Result:
        """The result of the next call, computed by the first entry."""
        if self._place == len(self._results):
            self._results.append(compute())
        self._place += 1
        found: Result = self._results[self._place - 1]
        return found


@dataclass(frozen=True)
class Inputs:
    """Result of `prepare` and argument of `__call__`.

    Attributes:
        ids: Ids of the B utterances.
        tensors: Tensors by name; the first axis of each is B.
        record: What the network gave for them, where several entries share its pass.
    """

    ids: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    record: Record | None = None

    @classmethod
    def of(cls, utterances: Sequence[Utterance], **tensors: Tensor) -> Self:
        """Inputs with the ids of some utterances."""
        return cls(tuple(utterance.id for utterance in utterances), tensors)

    def between(self, start: int, stop: int) -> Self:
        """Utterances `start` to before `stop`, with the padding that they have."""
        tensors = {name: tensor[start:stop] for name, tensor in self.tensors.items()}
        return type(self)(self.ids[start:stop], tensors)

    def pin_memory(self) -> Self:
        """A copy in page-locked memory, from which a device copies while it computes.

        What there is no room for stays where it is.
        """
        return type(self)(self.ids, {name: page_locked(t) for name, t in self.tensors.items()})

    def to(self, device: torch.device | str) -> Self:
        """A copy on another device."""
        tensors = {name: moved(t, device) for name, t in self.tensors.items()}
        return type(self)(self.ids, tensors, self.record)

    def once(self, compute: Callable[[], Result]) -> Result:
        """The result of a network's call, which entries that share a pass compute once."""
        return compute() if self.record is None else self.record.result(compute)


class Streaming(Protocol):
    """What has a stream: a backbone, or what is known of one that is not loaded."""

    @property
    def spec(self) -> StreamSpec:
        """Width and kind of the frames."""
        ...


class Backbone(Protocol):
    """A network (or signal processor) that turns utterances into a stream.

    Extraction and end-to-end training use the same object, so that cached features equal those of
    the live backbone.

    Attributes:
        spec: Width and kind of the frames.
        reads: Modality of an utterance that is read.
        trainable: Whether end-to-end training may tune its network.
    """

    spec: StreamSpec
    reads: Reads
    trainable: bool

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Read, resample, tokenise and pad, on the CPU.

        Raises:
            UtteranceError: If an utterance cannot be used; the caller continues without it.
        """
        ...

    def __call__(self, inputs: Inputs) -> Stream:
        """Compute the stream of `inputs`, on the device that they are on."""
        ...

    def provenance(self) -> dict[str, Any]:
        """All that decides the numbers: checkpoint, revision, hash of the weights, front end."""
        ...


class Networked:
    """Base of backbones with a `network`, pickled without it.

    Processes that prepare inputs get the front end only, without the weights.
    """

    network: nn.Module

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network."""
        return {name: value for name, value in vars(self).items() if name != "network"}


class BackboneFactory(Protocol):
    """Type of `build` in each module of `features/backbones`."""

    def __call__(self, *args: Any, **options: Any) -> Backbone:
        """Make the backbone; its keywords are those of its entry in params.yaml."""
        ...


class Wrapper:
    """Base of backbones around another one, whose network they use.

    Attributes:
        backbone: The other one.
    """

    backbone: Backbone

    def pieces(self, utterance: Utterance) -> Sequence[Utterance]:
        """What of an utterance goes through the network by itself: all of it, or its windows."""
        inner = self.backbone
        return inner.pieces(utterance) if isinstance(inner, Wrapper) else (utterance,)


class Statistics(Protocol):
    """Statistics of frames over time, `[B, D]` each: a `Stream`, or sums of one."""

    def mean(self) -> Tensor:
        """Mean."""
        ...

    def std(self) -> Tensor:
        """Population standard deviation."""
        ...

    def first(self) -> Tensor:
        """The first frame."""
        ...


@dataclass
class Pooled(Wrapper):
    """A backbone whose frames are reduced to one vector over time.

    `mean`; the `first` frame; `std`, the population standard deviation; or `mean_std`, mean and
    deviation side by side (statistics pooling of x-vectors, Snyder et al. 2018). Of several layers
    side by side `mean_std` keeps each one's two statistics together, so that a mix of layers mixes
    means with means: a vector of L layers of width 2 D.

    A method `pooled(inputs) -> Tensor [B, D]` of the backbone replaces `mean`, for a published mean
    that is not the mean of the frames, since it includes padding. `mean_std` is of the frames even
    there.

    Attributes:
        backbone: Backbone that gives the frames.
        how: Statistic.
        spec: One vector an utterance, 2 D wide if `mean_std`.
    """

    backbone: Backbone
    how: Statistic
    spec: StreamSpec = field(init=False)

    def __post_init__(self) -> None:
        inner = self.backbone.spec
        width = 2 * inner.dim if self.how == "mean_std" else inner.dim
        self.spec = StreamSpec(dim=width, layers=inner.layers)
        self.reads = self.backbone.reads
        self.trainable = self.backbone.trainable

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Inputs of the backbone."""
        return self.backbone.prepare(utterances)

    def __call__(self, inputs: Inputs) -> Stream:
        """One vector an utterance: values `[B, 1, D]`, or `[B, 1, 2 D]`."""
        own_mean = getattr(self.backbone, "pooled", None)
        if self.how == "mean" and own_mean is not None:
            vector = own_mean(inputs)
            return Stream(vector[:, None], vector.new_ones(len(vector), 1, dtype=torch.bool))
        stream = self.backbone(inputs)
        # Without any frame there is no vector either.
        return Stream(self.vector(stream)[:, None], stream.mask.any(1, keepdim=True))

    def vector(self, frames: Statistics) -> Tensor:
        """`[B, D]`, or `[B, 2 D]`."""
        if self.how == "mean_std":
            by_layer = (-1, self.spec.layers, self.backbone.spec.dim // self.spec.layers)
            both = frames.mean().reshape(by_layer), frames.std().reshape(by_layer)
            return torch.cat(both, dim=-1).flatten(1)
        return {"mean": frames.mean, "first": frames.first, "std": frames.std}[self.how]()

    def provenance(self) -> dict[str, Any]:
        """Provenance of the backbone; `BackboneEntry.provenance` adds the pooling."""
        return self.backbone.provenance()


def padded_seconds(backbone: Backbone, utterance: Utterance) -> float:
    """Size of an utterance in a batch: seconds of audio, or of its text if it were spoken.

    A backbone that pads audio to windows has the attribute `window_seconds`.
    """
    if isinstance(backbone, Wrapper):
        inner = innermost(backbone)
        return sum(padded_seconds(inner, piece) for piece in backbone.pieces(utterance))
    seconds = utterance.seconds if backbone.reads == "audio" else None
    if seconds is None:
        seconds = len(utterance.words(backbone.reads) or "") / CHARACTERS_A_SECOND
    window = float(getattr(backbone, "window_seconds", 0.0))
    # A window that is not full costs as much as a full one.
    return max(1.0, math.ceil(seconds / window)) * window if window else seconds


def notices(backbone: Backbone, utterances: Iterable[Utterance]) -> Iterator[tuple[str, str]]:
    """Ids of utterances of which a backbone leaves out a part, each with a notice.

    A backbone that truncates its inputs has a method `noticed(utterances) -> list[str | None]`. It
    must be cheap: it is called for whole corpora, even if all features exist already.
    """
    noticed = getattr(innermost(backbone), "noticed", None)
    if noticed is None:
        return
    remaining = iter(utterances)
    while some := list(islice(remaining, NOTICED_AT_ONCE)):
        for utterance, notice in zip(some, noticed(some), strict=True):
            if notice is not None:
                yield utterance.id, notice


def innermost(backbone: Backbone) -> Backbone:
    """The backbone inside of wrappers such as `Pooled`, or the backbone itself."""
    while isinstance(backbone, Wrapper):
        backbone = backbone.backbone
    return backbone


def module_of(backbone: Backbone) -> nn.Module | None:
    """The network of a backbone, to move, freeze or train it; None for signal processing."""
    network = getattr(innermost(backbone), "network", None)
    return network if isinstance(network, nn.Module) else None
