"""Computes a batch that does not fit a device's memory in parts that do.

A mean over a batch is the mean of its parts, each weighted by its size, so that gradients and
scores stay the same. The exception is batch norm, whose statistics are those of a part. A loss that
is no mean over rows (`Criterion.cuts`) has no parts: a batch that does not fit ends the training.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from features.backbone.base import Inputs
from features.errors import HeronryError
from features.process.memory import DoesNotFitError, Halver, Shape
from features.stream import Stream
from pipeline.model.batch import Batch

Result = TypeVar("Result")


class TooLargeError(HeronryError):
    """One utterance or dialogue, or the model itself, does not fit the device's memory."""


class NotFiniteError(HeronryError):
    """A loss or a gradient is not finite; the weights are those before it."""


FAULTS = (NotFiniteError, TooLargeError)  # errors that the rows of one process alone may cause


def to_stderr(line: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{line}\n")


@dataclass(frozen=True)
class FillerBatch(Batch):
    """A row of another process, computed to keep in step where there are fewer rows than processes.

    The process whose row it is counts it.
    """


class Fitting:
    """Computes batches in parts where they do not fit, by the `Halver` that extraction uses too.

    A step of training is more than one part: if one does not fit, gradients of the others are
    there already. So `attempt` gives up, and the caller undoes the step before it tries again.

    Args:
        too_large: Padded shapes from which batches are cut beforehand.
        report: Called with a message about the first batch that does not fit.
        whole: Why batches must not be cut; empty: they may be.
        shared: Whether other processes wait for each forward pass of such a batch, so that none may
            repeat its own.
    """

    def __init__(
        self,
        too_large: Sequence[Shape] = (),
        report: Callable[[str], None] = to_stderr,
        whole: str = "",
        *,
        shared: bool = False,
    ) -> None:
        self.halver = Halver(rows, padded_shape, between, list(too_large))
        self.report, self.whole, self.shared = report, whole, shared
        self._failed: set[Shape] = set()  # that did not fit the first time

    def attempt(
        self, batches: Sequence[Batch], compute: Callable[[Batch], Result]
    ) -> list[Result] | None:
        """Compute batches one after the other, in parts where they are too large.

        Returns:
            A result for each part in order; or None if a part did not fit. Then undo what was
            computed, and call it again: memory has been freed, or the part will be cut.

        Raises:
            TooLargeError: If a single row does not fit, or a batch that must not be cut.
        """
        results = []
        for batch in batches:
            # Shapes that did not fit may be another loss's, in a checkpoint.
            for part in [batch] if self.whole else self.halver.parts(batch):
                try:
                    results.append(self.halver.attempt(part, compute))
                except DoesNotFitError as error:
                    self._failed_once_or_twice(part, str(error))
                    return None
        # Only now: a part that fits says nothing of one of its shape that follows, beside whose
        # work lie the gradients of the first.
        self._failed.clear()
        return results

    def all(self, batch: Batch, compute: Callable[[Batch], Result]) -> list[Result]:
        """Compute a batch that leaves nothing to undo; a result for each of its parts."""
        while (results := self.attempt([batch], compute)) is None:
            pass
        return results

    def _failed_once_or_twice(self, part: Batch, reason: str) -> None:
        """Have what failed twice cut, which is reported once."""
        shape, first = self.halver.shape(part), not self.halver.too_large
        if shape not in self._failed and not (self.whole and self.shared):
            self._failed.add(shape)
            return
        if self.whole:
            raise TooLargeError(
                f"a batch of {len(part.ids)} utterances does not fit the memory of the device "
                f"({reason}), and must not be cut: {self.whole}"
            )
        if rows(part) == 1:
            raise TooLargeError(
                f"the utterances {list(part.ids)} alone do not fit the memory of the device "
                f"({reason}); expected a shorter one, or a larger device: cut it, leave it out, "
                "or set `e2e.gradient_checkpointing: true`, `e2e.precision: bfloat16`, or "
                "`tune: lora` or `frozen` in `e2e.slots`"
            )
        self.halver.cut(part)
        if first:
            self.report(
                f"a batch of {len(part.ids)} utterances does not fit the memory of the device "
                f"({reason}): from now on batches as large as it are computed in halves, and "
                "the steps of the optimiser stay the same"
            )


def rows(batch: Batch) -> int:
    """Number of utterances or dialogues."""
    if batch.targets is not None:
        return len(batch.targets)
    if batch.labels is not None:
        return len(batch.labels)
    return len(batch.ids)


def padded_shape(batch: Batch) -> Shape:
    """Dimensions of a batch's inputs and streams, padding included: what its memory grows with.

    Not their product: attention over one long clip takes more than over many short ones.
    """
    given = [
        tensor for _, inputs in sorted(batch.inputs.items()) for tensor in inputs.tensors.values()
    ]
    given += [stream.values for _, stream in sorted(batch.streams.items())]
    return tuple(size for tensor in given for size in tensor.shape)


def between(batch: Batch, start: int, stop: int) -> Batch:
    """Rows `start` to `stop` (exclusive), with the padding they have."""
    first, last = _first_id(batch, start), _first_id(batch, stop)
    ids = batch.ids[first:last]
    streams = {
        slot: Stream(stream.values[start:stop], stream.mask[start:stop])
        for slot, stream in batch.streams.items()
    }
    inputs = {
        slot: Inputs(ids, {name: tensor[first:last] for name, tensor in given.tensors.items()})
        for slot, given in batch.inputs.items()
    }
    labels = None if batch.labels is None else batch.labels[start:stop]
    targets = None if batch.targets is None else batch.targets[start:stop]
    return Batch(streams, labels, ids, inputs, targets)


def _first_id(batch: Batch, row: int) -> int:
    """Place in `ids` of a row's first utterance: a dialogue has one id for each of its turns."""
    if batch.labels is None and batch.targets is None:
        return row
    return int(batch.present[:row].sum())
