"""Long recordings computed window by window: `long: window` in an entry of `backbones`.

A recording longer than a window is read, prepared and computed in windows of equal length that
overlap, so that what it takes does not grow with its length. Windows begin on the grid of the
frames, each a hop after the one before; the last one is moved back, so that it ends with the
recording. With `window_pooling: frames` their frames are joined: each comes from the window whose
middle is nearest, where it has the most context on both sides, and number and times are those of
the whole recording. With `mean` each window gives one frame, the mean of its own.

What a backbone takes from a whole clip (normalisation, attention, the gaps of a pitch track) it
takes from each window. A recording not longer than a window is computed as without windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from features.audio.read import SAMPLE_RATE_HZ, WHOLE
from features.audio.resampling import Part
from features.backbone.base import Backbone, Inputs, Pooled, Wrapper
from features.corpus.utterance import Utterance
from features.errors import ParamsError
from features.stream import Stream

OVERLAP = 2  # frames that neighbours share at least: networks give up to one less than fits
GROUP_SECONDS = 120.0  # windows of a batch that are computed at once
COUNTS, KEPT = "windows.counts", "windows.kept"  # tensors of inputs with long recordings


@dataclass(frozen=True)
class Window(Utterance):
    """A window of a long recording: an utterance with its id, and its own start and stop.

    Attributes:
        whole: The utterance that it is a part of.
        part: Its samples among those of the whole at 16 kHz.
        kept: First frame that is kept, and the one behind the last; None: all to the end.
        last: Whether it is the last window of the whole.
    """

    whole: Utterance | None = None
    part: Part = WHOLE
    kept: Part = WHOLE
    last: bool = False


@dataclass
class Windowed(Wrapper):
    """A backbone that computes long recordings window by window.

    Attributes:
        backbone: Backbone of one window; if it is `Pooled`, a window gives one frame.
        seconds: Length of a window.
        hop_seconds: From the beginning of one window to that of the next.

    Raises:
        ParamsError: If frames cannot be joined: they are no grid in time, or windows do not overlap
            by two frames.
    """

    backbone: Backbone
    seconds: float
    hop_seconds: float

    def __post_init__(self) -> None:
        self.spec = self.backbone.spec
        self.reads, self.trainable = self.backbone.reads, self.backbone.trainable
        self._joins = not isinstance(self.backbone, Pooled)
        frame = self.spec.hop_seconds
        if self._joins and frame is None:
            raise ParamsError(
                "`long: window` with frames that are not evenly spaced in time, which cannot be "
                "joined; expected `window_pooling: mean`"
            )
        # Samples from one place where a window may begin to the next.
        self._step = SAMPLE_RATE_HZ * frame if self._joins and frame else 1.0
        self._length, self._hop = self._steps(self.seconds), max(1, self._steps(self.hop_seconds))
        if self._joins and self._hop > self._length - OVERLAP:
            most = (self._length - OVERLAP) * self._step / SAMPLE_RATE_HZ
            raise ParamsError(
                f"window_hop_seconds: given {self.hop_seconds:g} for windows of {self.seconds:g} "
                f"s; expected at most {most:g}, so that neighbours share {OVERLAP} frames, or "
                "`window_pooling: mean`"
            )

    @property
    def grid(self) -> tuple[int, int, float]:
        """Length of a window and of a hop, in steps, and the samples of a step."""
        return self._length, self._hop, self._step

    def is_long(self, utterance: Utterance) -> bool:
        """Whether an utterance is longer than a window, and no window itself."""
        long = utterance.seconds is not None and utterance.seconds > self.seconds
        return long and not isinstance(utterance, Window)

    def pieces(self, utterance: Utterance) -> Sequence[Utterance]:
        """The windows of a long recording, in order; any other utterance itself."""
        if not self.is_long(utterance):
            return (utterance,)
        assert utterance.seconds is not None
        length = utterance.seconds * SAMPLE_RATE_HZ / self._step
        last = math.ceil(length - self._length - 1e-6)
        starts = [*range(0, last, self._hop), last]
        # Half-way between the middles of neighbours, one of them takes over.
        joints = [(a + b + self._length + 1) // 2 for a, b in pairwise(starts)]
        first = [0, *(joint - start for joint, start in zip(joints, starts[1:], strict=True))]
        stop = [*(joint - start for joint, start in zip(joints, starts, strict=False)), None]
        kept = zip(first, stop, strict=True) if self._joins else [WHOLE] * len(starts)
        places = zip(starts, kept, strict=True)
        return [self._window(utterance, at, keep, last=at == last) for at, keep in places]

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Inputs of the backbone, of all windows.

        Where an utterance has several, tensors are `[B, W, ...]` of up to W windows, with their
        number `[B]` and the frames to keep of each, `[B, W, 2]` (behind the last: -1 for all).
        """
        pieces = [self.pieces(utterance) for utterance in utterances]
        inputs = self.backbone.prepare([piece for each in pieces for piece in each])
        counts = torch.tensor([len(each) for each in pieces])
        if len(inputs.ids) == len(pieces):
            return inputs
        there = torch.arange(int(counts.max())) < counts[:, None]
        kept = [(p.kept if isinstance(p, Window) else WHOLE) for each in pieces for p in each]
        ends = [(first, -1 if stop is None else stop) for first, stop in kept]
        every = {**inputs.tensors, KEPT: torch.tensor(ends)}
        tensors = {}
        for name, values in every.items():
            tensors[name] = values.new_zeros(*there.shape, *values.shape[1:])
            tensors[name][there] = values
        return Inputs.of(utterances, **{**tensors, COUNTS: counts})

    def __call__(self, inputs: Inputs) -> Stream:
        """The stream of whole utterances; of windows that were prepared one by one, of each."""
        tensors = dict(inputs.tensors)
        counts = tensors.pop(COUNTS, None)
        if counts is None:
            return self.backbone(inputs)
        there = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        flat = {name: values[there] for name, values in tensors.items()}
        kept = [(first, None if stop < 0 else stop) for first, stop in flat.pop(KEPT).tolist()]
        ends = list(accumulate(counts.tolist(), initial=0))
        ids = (
            id for id, (a, b) in zip(inputs.ids, pairwise(ends), strict=True) for _ in range(a, b)
        )
        every, size = Inputs(tuple(ids), flat), max(1, int(GROUP_SECONDS / self.seconds))
        frames: list[Tensor] = []
        for start in range(0, ends[-1], size):
            frames += self.backbone(every.between(start, start + size)).unpad()
        parts = [self._cut(each, keep) for each, keep in zip(frames, kept, strict=True)]
        whole = [torch.cat(parts[a:b]) for a, b in pairwise(ends)]
        return Stream.pad(whole).to(counts.device)

    def kept(self, window: Window, frames: Tensor) -> Tensor:
        """The frames of a window that belong to its recording."""
        return self._cut(frames, window.kept)

    def provenance(self) -> dict[str, Any]:
        """Provenance of the backbone; `BackboneEntry.provenance` adds the windows."""
        return self.backbone.provenance()

    def _steps(self, seconds: float) -> int:
        return math.floor(seconds * SAMPLE_RATE_HZ / self._step + 1e-6)

    def _window(self, whole: Utterance, at: int, kept: Part, *, last: bool) -> Window:
        assert whole.seconds is not None
        begin, end = (round((at + steps) * self._step) for steps in (0, self._length))
        start, length = begin / SAMPLE_RATE_HZ, (end - begin) / SAMPLE_RATE_HZ
        after = whole.start or 0.0
        times = {
            "start": after + start,
            "stop": whole.stop if last else after + start + length,
            "seconds": whole.seconds - start if last else length,
        }
        part = (begin, None if last else end)
        return Window(**vars(whole) | times, whole=whole, part=part, kept=kept, last=last)

    def _cut(self, frames: Tensor, kept: Part) -> Tensor:
        first, stop = kept
        if len(frames) < (first + 1 if stop is None else stop):
            raise ParamsError(
                f"a window of {self.seconds:g} s has {len(frames)} frames; expected {stop or first}"
                " at least to join it to its neighbours: set `window_hop_seconds` to less"
            )
        return frames[first:stop]


def windowed_in(backbone: object) -> Windowed | None:
    """The wrapper that computes a backbone's long recordings in windows, if it has one."""
    if isinstance(backbone, Windowed):
        return backbone
    return windowed_in(backbone.backbone) if isinstance(backbone, Wrapper) else None
