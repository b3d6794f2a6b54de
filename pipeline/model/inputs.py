"""Layers before any fusion: mixes of hidden states, norms, pooling (`models.<name>.inputs`).

`mix_layers` turns a stack of hidden states into one by learned weights, instead of one wide vector;
`standardize` or `whiten`, and then `layer_norm`, normalise the frames of some slots: by the
training frames, and each frame by itself; `attentive_statistics` reduces those of an utterance to
one vector. The fusion is then built for the streams that come out, so that it needs no code for any
of these. The layers but the last draw no random numbers: a fusion behind them begins with the
weights that it would have without.

Sources: ELMo (arXiv 1802.05365), equation 1, with its scale; SUPERB (arXiv 2105.01051) mixes the
layers of speech encoders in the same way, without a scale. ELMo's optional norm of each layer is
left out.

Shapes: B batch, T time (turns of a dialogue), L layers, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor, nn

from features.arguments import problems, refuse
from features.errors import ParamsError
from features.ranges import Interval, Width
from features.stream import Stream, StreamSpec
from pipeline.model.attentive_statistics import AttentiveStatistics
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch, Prediction
from pipeline.model.standardize import Moments, Standardize, Whiten

# Moments of a batch's utterances are held at once: 64 times 8 MiB of products at this width.
WIDEST = 1024
Slot = Literal["text", "speech", "nonverbal", "prosody", "spectral"]
LayerNumber = Annotated[int, Interval(ge=-1000, le=1000)]


@dataclass(frozen=True)
class InputSettings:
    """Keys of `models.<name>.inputs`.

    Attributes:
        layer: Hidden state that is read of a stack, by slot; the others are not there for the model
            (`pipeline.data.layer_views`).
        mix_layers: Slots whose stacks of layers are mixed to the width of one; they may be `none`.
            True: all that hold stacks. The other stacks are one wide vector each.
        layer_norm: Slots whose frames are normalised, after mixing; they may be `none`.
        standardize: Slots whose frames are standardised, after mixing (`fit_inputs` says by what)
            and before `layer_norm`; they may be `none`.
        whiten: Slots whose frames are standardised and uncorrelated instead (`Whiten`), of at most
            1024 dimensions; they may be `none`.
        whiten_shrinkage: Weight of the identity among the correlations by which frames are
            whitened; 1 only standardises.
        attentive_statistics: Slots whose frames become one vector, mean and deviation weighted by
            attention (`AttentiveStatistics`), after all of the above; they may be `none`.
        attention_width: Hidden width of that attention; None: the width of the frames.
        attention_by_channel: Whether each feature has its own attention, which sees the statistics
            of all frames too, as in ECAPA-TDNN.
    """

    layer: Mapping[Slot, LayerNumber] = field(default_factory=dict)
    mix_layers: bool | tuple[Slot, ...] = False
    layer_norm: tuple[Slot, ...] = ()
    standardize: tuple[Slot, ...] = ()
    whiten: tuple[Slot, ...] = ()
    whiten_shrinkage: Annotated[float, Interval(ge=1e-6, le=1)] = 0.5
    attentive_statistics: tuple[Slot, ...] = ()
    attention_width: Width | None = 128
    attention_by_channel: bool = False

    def __post_init__(self) -> None:
        for name in ("layer_norm", "standardize", "whiten", "attentive_statistics"):  # YAML's lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.mix_layers, bool):
            # no slot at all is False, as files have it
            object.__setattr__(self, "mix_layers", tuple(self.mix_layers) or False)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Self:
        """Settings from params.yaml or model.json; None: all off.

        Raises:
            ParamsError: Naming the valid keys, if one is unknown or of another type.
        """
        refuse(problems(cls, given or {}, "inputs"))
        return cls(**(given or {}))

    def mixes(self, slot: str, spec: StreamSpec) -> bool:
        """Whether a slot's layers are mixed.

        Raises:
            ParamsError: If they are to be and there is one alone.
        """
        if isinstance(self.mix_layers, bool):
            return self.mix_layers and spec.layers > 1
        if slot in self.mix_layers and spec.layers == 1:
            raise ParamsError(
                f"inputs.mix_layers: given the {slot} slot, of which one layer is read; expected a "
                "stack: fill it with an entry that has `layer: all` or a list, without "
                f"`inputs.layer.{slot}`, or take {slot!r} out of the list"
            )
        return slot in self.mix_layers

    def to_dict(self) -> dict[str, Any]:
        """Mapping for JSON; empty if all is off, as files of older releases have it."""
        default, written = type(self)(), asdict(self)
        if self == default:
            return {}
        # Releases that knew no others wrote these two alone.
        names = (
            "mix_layers",
            "layer_norm",
            *(n for n in written if written[n] != vars(default)[n]),
        )
        found = {name: written[name] for name in names}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


class LayerMix(nn.Module):
    """Learned mix of hidden states: gamma * sum_l softmax(s)_l h_l, `[B, T, L D]` to `[B, T, D]`.

    It starts at s = 0 and gamma = 1, which is the mean: softmax(0)_l = 1 / L.

    Args:
        layers: Number of layers L.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, values: Tensor) -> Tensor:
        """Sum of the layers one after the other, so that the stack is not copied."""
        first, *others = values.chunk(len(self.weights), dim=-1)
        share, *shares = self.weights.softmax(0).unbind()
        mixed = first * share
        for layer, share in zip(others, shares, strict=True):
            mixed = torch.addcmul(mixed, layer, share)
        return mixed * self.scale


class InputLayers(nn.Module):
    """Mixes, norms and pools by slot: streams by slot to others, with zeros at padding.

    Args:
        specs: Streams of the backbones.
        settings: Layers that are switched on.

    Attributes:
        specs: Streams that the fusion is built for.

    Raises:
        ParamsError: If bins are to be normalised or pooled, a slot that is to be mixed holds no
            stack or one that does not divide into its layers, or frames that are to be whitened are
            too wide or standardised already.
    """

    def __init__(self, specs: Mapping[str, StreamSpec], settings: InputSettings) -> None:
        super().__init__()
        self.specs = dict(specs)
        self.mixes, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self.scales, self.pools = nn.ModuleDict(), nn.ModuleDict()
        for slot, spec in specs.items():
            if settings.mixes(slot, spec):
                self.mixes[slot] = LayerMix(spec.layers)
                # `spec` too: the norms below have the width of the mixed stream.
                self.specs[slot] = spec = _one_layer(slot, spec)
            if slot in settings.standardize:
                self.scales[slot] = Standardize(_width("standardize", slot, spec))
            if slot in settings.whiten:
                self.scales[slot] = Whiten(
                    _whitened_width(slot, spec, settings), settings.whiten_shrinkage
                )
            if slot in settings.layer_norm:
                self.norms[slot] = nn.LayerNorm(_width("layer_norm", slot, spec))
            if slot in settings.attentive_statistics:
                width = _width("attentive_statistics", slot, spec)
                self.pools[slot] = AttentiveStatistics(
                    width, settings.attention_width, by_channel=settings.attention_by_channel
                )
                self.specs[slot] = StreamSpec(2 * width)

    @property
    def changed(self) -> list[str]:
        """Slots that have any of these layers."""
        layers = (self.mixes, self.scales, self.norms, self.pools)
        return [slot for slot in self.specs if any(slot in each for each in layers)]

    @property
    def open(self) -> dict[str, Standardize]:
        """Standardisations and whitenings that have no statistics yet, by slot."""
        scales = {slot: each for slot, each in self.scales.items() if isinstance(each, Standardize)}
        return {slot: each for slot, each in scales.items() if not each.fitted}

    def moments(self, streams: Mapping[str, Stream]) -> dict[str, list[Moments]]:
        """Moments of each utterance's frames by slot of `open`, mixed if they are a stack."""
        found = {}
        for slot, scale in self.open.items():
            values = streams[slot].values
            mixed = self.mixes[slot](values) if slot in self.mixes else values
            found[slot] = [scale.measure(x) for x in Stream(mixed, streams[slot].mask).unpad()]
        return found

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Streams of all slots, of which `changed` are new."""
        return dict(streams) | {slot: self._prepared(slot, streams[slot]) for slot in self.changed}

    def _prepared(self, slot: str, stream: Stream) -> Stream:
        values = stream.values
        for modules in (self.mixes, self.scales, self.norms):
            values = modules[slot](values) if slot in modules else values
        # The bias of a norm is added to padding too.
        stream = Stream(values.masked_fill(~stream.mask[..., None], 0), stream.mask)
        return self.pools[slot](stream) if slot in self.pools else stream


class PreparedFusion(FusionModel):
    """Fusion behind `InputLayers`.

    Args:
        inputs: Layers before the fusion.
        fusion: Model built for `inputs.specs`.

    Raises:
        ParamsError: If frames are to be pooled for a model over dialogues.
    """

    def __init__(self, inputs: InputLayers, fusion: FusionModel) -> None:
        super().__init__()
        self.inputs, self.fusion = inputs, fusion
        self.unit = fusion.unit
        if self.unit == "dialogue" and inputs.pools:
            raise ParamsError(
                f"inputs.attentive_statistics: given {list(inputs.pools)} for a model over "
                "dialogues, which takes one vector a turn and no frames; expected []: fill the "
                "slot with an entry of `backbones` that has `pooling: mean_std`"
            )

    def forward(self, batch: Batch) -> Prediction:
        """The fusion's prediction."""
        prediction: Prediction = self.fusion(replace(batch, streams=self.inputs(batch.streams)))
        return prediction

    def frames_used(self, slot: str) -> int | None:
        """Frames that the fusion uses; all, if they are pooled before it."""
        return None if slot in self.inputs.pools else self.fusion.frames_used(slot)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """The fusion's loss, by the criterion that training set on this model."""
        # Training sets the criterion of the outer model alone.
        self.fusion.criterion = self.criterion
        return self.fusion.loss(prediction, batch)


def _width(setting: str, slot: str, spec: StreamSpec) -> int:
    """Width of a slot's frames, which must be real-valued."""
    if spec.bins is not None:
        raise ParamsError(
            f"inputs.{setting}: the {slot} slot holds {spec.bins} integer bins; "
            f"expected slots of real-valued frames: take {slot!r} out of the list"
        )
    return spec.dim


def _whitened_width(slot: str, spec: StreamSpec, settings: InputSettings) -> int:
    """Width of a slot's frames, which must be narrow enough for a matrix of correlations."""
    if slot in settings.standardize:
        raise ParamsError(
            f"inputs.whiten: given the {slot} slot, which `inputs.standardize` lists too; whitened "
            "frames are standardised: take it out of one of the lists"
        )
    width = _width("whiten", slot, spec)
    if width > WIDEST:
        raise ParamsError(
            f"inputs.whiten: the {slot} slot is {width} wide; expected at most {WIDEST}, as the "
            "correlations of so many dimensions take gigabytes: use `inputs.standardize` for it"
        )
    return width


def _one_layer(slot: str, spec: StreamSpec) -> StreamSpec:
    if spec.dim % spec.layers:
        raise ParamsError(
            f"inputs.mix_layers: the {slot} slot is {spec.dim} wide with {spec.layers} layers; "
            "expected a multiple: its cache is none of heronry's, extract it again"
        )
    return replace(spec, dim=spec.dim // spec.layers, layers=1)
