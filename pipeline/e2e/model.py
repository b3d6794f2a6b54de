"""A fusion and the backbones below it as one model, for end-to-end training.

The backbones are the objects that extraction uses, so that in eval mode and float32 this model
gives what the fusion gives on their cached features.

It can mask frames while training: SpecAugment in time (Park et al. 2019, arXiv 1904.08779), inside
a speech network. Spans of 0.2 s are zeroed behind the convolutions of the wav2vec 2.0 family (where
wav2vec 2.0, arXiv 2006.11477, has a learned vector instead of zeros) or in the spectra of Whisper
and CED. For CED it can also mask one span of mel bands and one of frames, and crop clips at random,
as the MDAT code (arXiv 2506.02088) does. Draws come from torch's generator on the CPU, which is
part of a training's state.

Shapes: B batch, T time, N turns, D width, M mel bands.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from features.backbone.base import Backbone, Pooled, innermost, module_of
from features.backbone.windows import windowed_in
from features.errors import ParamsError
from features.process.devices import moved
from features.stream import Stream
from pipeline.data.dialogues import stack_turns
from pipeline.e2e.tuning import Tuned, checkpoint_blocks, tune
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch, Prediction
from pipeline.params.tuning import TuneParams

SPAN_SECONDS = 0.2
FRAME_SECONDS = 0.02  # behind the convolutions of speech networks
MEL_SECONDS = 0.01
# Modules whose output, or input, is masked.
FRAMES = ("feature_projection", "modality_encoders.AUDIO.project_features")  # give [B, T, D]
MELS = ("conv1",)  # take [B, M, T]
SPECTRA = ("init_bn",)  # give [B, M, T], standardised
# Most mel bands and frames of a span in the MDAT code; widths and places are evenly distributed.
SPAN_BANDS = 24
SPAN_FRAMES = 192
SHORTEST = 3.0  # seconds of a random part, in the MDAT code


def spans(batch: int, time: int, share: float, length: int) -> Tensor:
    """Frames that random spans cover, `[B, T]` bool.

    A span begins at each frame with probability share / length, so that a frame is covered with
    probability 1 - (1 - share / length)^length, a little less than `share`.
    """
    # A frame is covered if a span began within the last `length` frames: if the number of spans
    # begun so far is larger than it was `length` frames ago.
    begun = (torch.rand(batch, time) < share / length).cumsum(1)
    before = torch.nn.functional.pad(begun, (length, 0))[:, :time]
    return begun > before


def boxes(batch: int, size: int, longest: int, probability: float) -> Tensor:
    """Indices that one span of each row covers, `[B, size]` bool; none of some rows.

    Args:
        batch: Number of rows B.
        size: Mel bands, or frames.
        longest: A span has 0 to `longest - 1` of them, each as likely, as torchaudio draws it.
        probability: Probability that a row has a span.
    """
    width = (torch.rand(batch, 1) * min(longest, size)).floor()
    start = (torch.rand(batch, 1) * (size - width)).floor()
    places = torch.arange(size)
    return (places >= start) & (places < start + width) & (torch.rand(batch, 1) < probability)


def crops(frames: Tensor, shortest: int, probability: float) -> tuple[Tensor, Tensor]:
    """First frame and number of frames of a random part of each clip, `[B]` each.

    A part has from `shortest` frames to all of them, each number as likely, and begins anywhere.

    Args:
        frames: Number of frames of each clip, `[B]`.
        shortest: Frames of the shortest part; clips of no more stay whole.
        probability: Probability that a clip is replaced by a part.
    """
    lengths = frames.cpu()
    chosen, length, place = torch.rand(3, len(lengths))
    part = shortest + (length * (lengths - shortest + 1)).floor().long()
    part = torch.where((chosen < probability) & (lengths > shortest), part, lengths)
    return (place * (lengths - part + 1)).floor().long(), part


def mask_spectrogram(network: nn.Module, probability: float) -> None:
    """Register a hook that masks bands and frames whenever the network is in training mode.

    Args:
        network: Network of CED.
        probability: Probability that a chunk has a span of bands, and that it has one of frames.
    """
    dict(network.named_modules())[SPECTRA[0]].register_forward_hook(
        partial(_within_boxes, network, probability)
    )


def _within_boxes(
    network: nn.Module, probability: float, _module: nn.Module, _given: Any, mel: Tensor
) -> Tensor:
    if not network.training:
        return mel
    bands = boxes(len(mel), mel.shape[1], SPAN_BANDS, probability)
    frames = boxes(len(mel), mel.shape[2], SPAN_FRAMES, probability)
    # The standardised spectrum has its mean at 0.
    return mel.masked_fill(moved(bands[:, :, None] | frames[:, None], mel.device), 0)


def mask_time(network: nn.Module, share: float) -> None:
    """Register a hook that masks frames whenever the network is in training mode.

    Args:
        network: Network of a backbone that reads audio.
        share: Share of the frames to mask.

    Raises:
        ParamsError: If the network has none of the known modules.
    """
    modules = dict(network.named_modules())
    for name in FRAMES:
        if name in modules:
            modules[name].register_forward_hook(partial(_after, network, share))
            return
    for name in MELS:
        if name in modules:
            modules[name].register_forward_pre_hook(partial(_before, network, share))
            return
    for name in SPECTRA:
        if name in modules:
            modules[name].register_forward_hook(partial(_spectrum, network, share))
            return
    raise ParamsError(
        f"e2e.specaugment: given {share} for a {type(network).__name__}, whose frames are not "
        "known; expected 0, or a network of the wav2vec 2.0 family, Whisper, emotion2vec or CED"
    )


def _after(network: nn.Module, share: float, _module: nn.Module, _given: Any, found: Any) -> Any:
    if not network.training:
        return found
    frames, *others = found if isinstance(found, tuple) else (found,)
    batch, time = frames.shape[:2]
    covered = spans(batch, time, share, round(SPAN_SECONDS / FRAME_SECONDS))
    masked = frames.masked_fill(moved(covered[..., None], frames.device), 0)
    return (masked, *others) if isinstance(found, tuple) else masked


def _before(network: nn.Module, share: float, _module: nn.Module, given: Any) -> Any:
    if not network.training:
        return given
    (mel,) = given
    covered = spans(len(mel), mel.shape[-1], share, round(SPAN_SECONDS / MEL_SECONDS))
    return (mel.masked_fill(moved(covered[:, None], mel.device), 0),)


def _spectrum(
    network: nn.Module, share: float, _module: nn.Module, _given: Any, mel: Tensor
) -> Tensor:
    if not network.training:
        return mel
    covered = spans(len(mel), mel.shape[-1], share, round(SPAN_SECONDS / MEL_SECONDS))
    return mel.masked_fill(moved(covered[:, None], mel.device), 0)


class EndToEnd(FusionModel):
    """Live backbones and the fusion on top of them.

    Streams of other slots come with the batch, as for the fusion alone. A backbone without a
    network (signal processing) has nothing to train; its features are computed by `prepare`.

    Args:
        fusion: Fusion made for the streams of all slots.
        backbones: Backbones of the live slots; their networks are changed in place.
        params: Section `e2e` of params.yaml.

    Attributes:
        tuned: Networks by slot, with what is trained of them.

    Raises:
        ParamsError: If a network lacks the parts to be tuned, or a model over dialogues would get
            frames.
    """

    def __init__(
        self, fusion: FusionModel, backbones: Mapping[str, Backbone], params: TuneParams
    ) -> None:
        super().__init__()
        self.fusion, self.unit = fusion, fusion.unit
        self.backbones = dict(backbones)
        self.dtype: torch.dtype = getattr(torch, params.precision)
        self.scales_loss = params.precision == "float16"
        self.networks = nn.ModuleDict()
        self.tuned: dict[str, Tuned] = {}
        for slot, backbone in backbones.items():
            if fusion.unit == "dialogue" and not isinstance(backbone, Pooled):
                raise ParamsError(
                    f"the {slot} slot: its backbone gives frames, and a model over dialogues takes "
                    "one vector a turn; fill the slot with an entry of `backbones` that has "
                    "`pooling: mean` (or `first`, `std`, `mean_std`)"
                )
            network = module_of(backbone)
            if network is not None:
                self.networks[slot] = network
                self.tuned[slot] = _tuned(network, backbone, slot, params)
        for network in self._taggers("spectrogram_masks", params.spectrogram_masks).values():
            mask_spectrogram(network, params.spectrogram_masks)
        self.random_crop = params.random_crop
        self.cropped = set(self._taggers("random_crop", params.random_crop))
        for slot in self.cropped:
            if windowed_in(backbones[slot]) is not None:
                raise ParamsError(
                    f"e2e.random_crop: given {params.random_crop} for the {slot} slot, whose "
                    "backbone has `long: window`; expected 0, or `long: whole`: CED cuts long "
                    "clips by itself"
                )
        self.train(mode=self.training)

    def forward(self, batch: Batch) -> Prediction:
        """The fusion's prediction on the streams of all slots."""
        streams = self.streams(batch)
        if self.unit == "dialogue":
            turns = batch.present
            streams |= {slot: stack_turns(streams[slot], turns) for slot in self.backbones}
        prediction: Prediction = self.fusion(replace(batch, streams=streams, inputs={}))
        return prediction

    def streams(self, batch: Batch) -> dict[str, Stream]:
        """Streams of all slots, `[B, T, D]`: of the backbones, and those in the batch."""
        return {slot: self._stream(slot, batch) for slot in self.backbones} | dict(batch.streams)

    def loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        """The fusion's loss, with this model's criterion."""
        self.fusion.criterion = self.criterion  # set by the training loop, on this model alone
        return self.fusion.loss(prediction, batch)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  torch's own signature
        """Switch training mode, but for frozen parts, whose dropout stays off."""
        super().train(mode)
        for tuned in self.tuned.values():
            tuned.rest()
        return self

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Trained parameters in groups of equal rates; the fusion's is the protocol's."""
        groups: dict[float, list[nn.Parameter]] = defaultdict(list)
        groups[1.0] = list(self.fusion.parameters())
        for tuned in self.tuned.values():
            for scale, parameter in tuned.scales(lr):
                groups[scale].append(parameter)
        return [{"params": group, "lr_scale": scale} for scale, group in groups.items()]

    def merge(self) -> None:
        """Merge adapters into the weights; after that nothing can be trained."""
        for tuned in self.tuned.values():
            tuned.merge()

    def _taggers(self, setting: str, probability: float) -> dict[str, nn.Module]:
        """Networks of CED that are trained, by slot, which a setting above 0 is about."""
        if probability == 0:
            return {}
        trained = {slot: tuned.network for slot, tuned in self.tuned.items() if tuned.trains}
        found = {s: network for s, network in trained.items() if hasattr(network, SPECTRA[0])}
        if not found:
            raise ParamsError(
                f"e2e.{setting}: given {probability} without a CED that is trained; expected 0, "
                "or an entry of kind ced in a slot that is tuned"
            )
        return found

    def _stream(self, slot: str, batch: Batch) -> Stream:
        """Frames `[B, T, D]` in float32."""
        inputs = batch.inputs[slot]
        if slot in self.cropped and self.networks[slot].training:
            backbone: Any = innermost(self.backbones[slot])
            shortest = round(SHORTEST / MEL_SECONDS)
            frames = inputs.tensors["frames"]
            inputs = backbone.cropped(inputs, *crops(frames, shortest, self.random_crop))
        with self._computing(slot, next(iter(inputs.tensors.values())).device):
            stream = self.backbones[slot](inputs)
        if not stream.values.is_floating_point():  # bins
            return stream
        # Reduced precision ends here: the fusion always computes in float32.
        return Stream(stream.values.float(), stream.mask)

    @contextlib.contextmanager
    def _computing(self, slot: str, device: torch.device) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            # Without gradients a frozen network keeps no activations.
            if slot not in self.tuned or not self.tuned[slot].trains:
                stack.enter_context(torch.no_grad())
            if self.dtype != torch.float32:
                stack.enter_context(torch.autocast(device.type, self.dtype))
            yield


def _tuned(network: nn.Module, backbone: Backbone, slot: str, params: TuneParams) -> Tuned:
    if not backbone.trainable and params.of(slot).tune != "frozen":
        raise ParamsError(
            f"e2e.slots.{slot}.tune: given {params.of(slot).tune!r} for a backbone that has no "
            "gradients; expected 'frozen'"
        )
    tuned = tune(network, params.of(slot), params.adapters, slot)
    if params.gradient_checkpointing:
        checkpoint_blocks(tuned)
    if params.specaugment > 0 and backbone.reads == "audio" and tuned.trains:
        mask_time(network, params.specaugment)
    return tuned
