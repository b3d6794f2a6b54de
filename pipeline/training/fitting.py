"""Batches that do not fit a device's memory, as parts that do.

What a mean over a batch is, the means over its parts are together, each weighed by its size. Only a
batch norm, whose statistics are those of a part, makes something else of it.

Legend: B rows, which are utterances or dialogues.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from features.backbone.base import Inputs
from features.errors import HeronryError
from features.process.memory import out_of_memory
from features.stream import Stream
from pipeline.data.dialogues import UNSCORED
from pipeline.model.batch import Batch

Result = TypeVar("Result")


class TooLargeError(HeronryError):
    """One utterance, or dialogue, does not fit the device's memory."""


def to_stderr(line: str) -> None:
    """Say a line to whoever started this."""
    sys.stderr.write(f"{line}\n")


@dataclass(frozen=True)
class StandIn(Batch):
    """A row that another process computes too, and counts: there are fewer rows than processes."""


@dataclass
class Fitting:
    """What fits at once, as far as that is known.

    Attributes:
        limit: Padded numbers of the smallest batch that did not fit; None: all did. Batches of that
            size or larger are cut beforehand.
        say: Told of the first one that did not.
    """

    limit: int | None = None
    say: Callable[[str], None] = to_stderr

    def attempt(
        self, batches: Sequence[Batch], compute: Callable[[Batch], Result]
    ) -> list[Result] | None:
        """Compute batches one after the other, in parts where they are too large.

        Returns:
            A result for each part in order; or None if one did not fit, from which more was learnt:
            try again.

        Raises:
            TooLargeError: If a single row does not fit.
        """
        results = []
        for batch in batches:
            for part in self.parts(batch):
                try:
                    results.append(compute(part))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    reason = str(error).partition(". ")[0]
                else:
                    continue
                # Outside of the handler, where the error no longer keeps what it was raised among.
                self._too_large(part, reason)
                return None
        return results

    def all(self, batch: Batch, compute: Callable[[Batch], Result]) -> list[Result]:
        """A result for each part of a batch, where nothing has to be undone before trying again."""
        while (results := self.attempt([batch], compute)) is None:
            pass
        return results

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """The batch, or its halves, or theirs: the largest that may fit."""
        if self.limit is None or padded_size(batch) < self.limit or rows(batch) == 1:
            yield batch
            return
        middle = rows(batch) // 2
        yield from self.parts(between(batch, 0, middle))
        yield from self.parts(between(batch, middle, rows(batch)))

    def _too_large(self, part: Batch, reason: str) -> None:
        if rows(part) == 1:
            raise TooLargeError(
                f"the utterances {list(part.ids)} alone do not fit the memory of the device "
                f"({reason}); expected a shorter one, or a larger device: cut it, leave it out, "
                "or set `e2e.gradient_checkpointing: true`, `e2e.precision: bfloat16`, or "
                "`tune: lora` or `frozen` in `e2e.slots`"
            )
        if self.limit is None:
            self.say(
                f"a batch of {len(part.ids)} utterances does not fit the memory of the device "
                f"({reason}): from now on batches of that size are computed in halves, and the "
                "steps of the optimiser stay the same"
            )
        size = padded_size(part)
        self.limit = size if self.limit is None else min(self.limit, size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def rows(batch: Batch) -> int:
    """Number of utterances or dialogues."""
    if batch.labels is not None:
        return len(batch.labels)
    return len(batch.ids)


def padded_size(batch: Batch) -> int:
    """Numbers that a batch is made of, padding included: about what its memory grows with."""
    given = [tensor for inputs in batch.inputs.values() for tensor in inputs.tensors.values()]
    given += [stream.values for stream in batch.streams.values()]
    return sum(tensor.numel() for tensor in given)


def between(batch: Batch, start: int, stop: int) -> Batch:
    """The rows from `start` to before `stop`, with the padding that they have."""
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
    return Batch(streams, labels, ids, inputs)


def _first_id(batch: Batch, row: int) -> int:
    """The place in `ids` of a row's first utterance: a dialogue has one for each of its turns."""
    labels = batch.labels
    if labels is None or labels.ndim == 1 or labels.is_floating_point():
        return row
    return int((labels[:row] != UNSCORED).sum())
