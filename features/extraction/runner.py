"""Runs a backbone on a device: batches in, streams being copied back out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from features.backbone.base import Backbone, Inputs, module_of
from features.corpus.utterance import Utterance
from features.extraction.batches import Prepared, prepare
from features.process.devices import entered, fetched, plain_kernels
from features.process.memory import DoesNotFitError, Halver, out_of_memory
from features.stream import Stream


@dataclass(frozen=True)
class Result:
    """A stream that is being copied from the device; `wait` before reading it.

    Attributes:
        utterances: Utterances of its rows.
        stream: Stream in the host's memory; None: a single utterance does not fit the device's.
        arrived: Event of the device when the copy is complete; None if it is complete.
    """

    utterances: tuple[Utterance, ...]
    stream: Stream | None
    arrived: torch.Event | None = None

    @property
    def bytes(self) -> int:
        """Size of the stream in the host's memory."""
        return 0 if self.stream is None else self.stream.values.nbytes

    def wait(self) -> Stream | None:
        """The stream, once it is copied. Page-locked memory is short: copy what is kept of it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.stream


class Runner:
    """Runs a backbone's network on a device.

    Args:
        backbone: Backbone, whose network is moved to the device at the first batch.
        device: Device to compute on.
        dtype: Precision of the network: float32, bfloat16 or float16 (by autocast).
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: str) -> None:
        self.backbone, self.device, self.dtype = backbone, device, dtype
        self._halver = halver()
        self._moved = False

    def launch(self, item: Prepared) -> list[Result]:
        """Start a batch on the device; its streams may still be being copied at return."""
        results = []
        for result in self._launched(item):
            if result.stream is None and len(item.utterances) > 1:
                # Cut out of a batch, a clip has the padding of the longest one, which may be all
                # that does not fit.
                results += self._launched(prepare(self.backbone, result.utterances)) or [result]
            else:
                results.append(result)
        return results

    @torch.inference_mode()
    def _launched(self, item: Prepared) -> list[Result]:
        if item.inputs is None:
            return []
        results, start = [], 0
        with self.entered():
            for stream in self._streams(item.inputs):
                stop = start + (1 if stream is None else len(stream.mask))
                results.append(self.bring(item.utterances[start:stop], stream))
                start = stop
        return results

    @torch.inference_mode()
    def launch_beside(self, item: Prepared) -> list[Result] | None:
        """As `launch`, while other threads compute; None if it does not fit beside them."""
        if item.inputs is None:
            return []
        with self.entered():
            try:
                return [self.bring(item.utterances, self.run(item.inputs))]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                return None

    @torch.inference_mode()
    def deviation(self, item: Prepared) -> float | None:
        """Largest change by a reduced precision, relative to the largest value.

        Measured on the first utterance of a batch. None in float32, for bins, and where that
        utterance has no features in one precision: its values overflow, or it does not fit.
        """
        if item.inputs is None or self.dtype == "float32" or self.backbone.spec.bins is not None:
            return None
        first = item.inputs.between(0, 1)
        with self.entered():
            try:
                found = self._halver.attempt_twice(first, self._deviation)
            except DoesNotFitError:
                return None
        return found if math.isfinite(found) else None

    def forget(self) -> None:
        """Forget which batches did not fit."""
        self._halver.forget()

    def _deviation(self, inputs: Inputs) -> float:
        exact = self.run(inputs, "float32").values
        if not exact.numel():
            return math.nan
        difference = (self.run(inputs).values.float() - exact).abs().max()
        return float(difference / exact.abs().max().clamp(min=1e-30))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Context in which the device is this thread's, has the network, and rounds no float32."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(entered(self.device))
            if self.device.type != "cpu":  # where several threads compute, and there is no TF32
                stack.enter_context(plain_kernels())
            self._move()
            yield

    def _move(self) -> None:
        network = None if self._moved else module_of(self.backbone)
        if network is not None:
            network.to(self.device)
            if self.device.type != "cpu":  # some networks have channels last for CPUs
                network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._moved = True

    def _streams(self, inputs: Inputs) -> list[Stream | None]:
        """Streams of the batch's parts, in order; None: a single utterance that is too large."""
        streams: list[Stream | None] = []
        for part in self._halver.parts(inputs):
            try:
                stream = self._halver.attempt_twice(part, self.run)
            except DoesNotFitError:
                streams += [None] if len(part.ids) == 1 else self._streams(part)
            else:
                streams.append(stream)
        return streams

    def run(self, inputs: Inputs, dtype: str | None = None) -> Stream:
        """The stream of some inputs in the given precision; None: that of the runner."""
        moved, dtype = inputs.to(self.device), dtype or self.dtype
        if dtype == "float32":
            return self.backbone(moved)
        with torch.autocast(self.device.type, getattr(torch, dtype)):
            return self.backbone(moved)

    def bring(self, utterances: tuple[Utterance, ...], stream: Stream | None) -> Result:
        """The result of a stream that is on the device."""
        if stream is None:
            return Result(utterances, None)
        (values, mask), arrived = fetched((stream.values, stream.mask), self.device)
        return Result(utterances, Stream(values, mask), arrived)


def halver() -> Halver[Inputs]:
    """Cuts inputs that do not fit a device in halves."""
    return Halver[Inputs](
        rows=lambda inputs: len(inputs.ids),
        shape=lambda inputs: tuple(n for t in inputs.tensors.values() for n in t.shape),
        between=Inputs.between,
    )
