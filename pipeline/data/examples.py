"""Cached features and labels as batches.

Rows come from the memory-mapped shards and are copied once, into the padded batch; or from a copy
on the device (`pipeline.cached.resident`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from features.cache.reader import CacheReader
from features.corpus.manifest import Label
from features.errors import CacheError
from features.stream import Stream, StreamSpec
from pipeline.data.batching import pinned, read_ahead
from pipeline.data.dialogues import stack_labels, stack_turns, turns_mask
from pipeline.data.left_out import describe
from pipeline.data.source import Rows, even_counts
from pipeline.model.batch import Batch


class Resident(Protocol):
    """A slot's frames on a device."""

    def batch(self, ids: Sequence[str]) -> Stream:
        """Some utterances, padded: what `CacheReader.batch` gives."""
        ...

    def turns(self, ids: Sequence[str], mask: Tensor) -> Stream:
        """Pooled utterances as turns: what `stack_turns` makes of a batch."""
        ...


@dataclass(frozen=True)
class Examples:
    """Utterances that every filled slot has features for.

    Attributes:
        readers: Cache by slot.
        labels: In corpus order; only usable ones.
        classes: Names, in the order of the model's outputs.
        dropped: Reasons by id of those that a slot lacks, with every slot that lacks it.
        residents: Copies of the slots' frames on the device, or none of them.
        ahead: Whether a thread makes batches before they are asked for: `pipeline.data.batching`.
        pinned: Whether they are made in page-locked memory, from which a GPU copies by itself.
        frames_max: Frames of an utterance that the model uses, for `noticed`; None: all.
    """

    readers: Mapping[str, CacheReader]
    labels: Sequence[Label]
    classes: Sequence[str]
    dropped: Mapping[str, str]
    residents: Mapping[str, Resident] = field(default_factory=dict)
    ahead: bool = False
    pinned: bool = False
    frames_max: int | None = None

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """Streams by slot."""
        return {slot: reader.spec for slot, reader in self.readers.items()}

    @property
    def noticed(self) -> dict[str, dict[str, str]]:
        """By slot the notices by id of utterances that are used, though not wholly."""
        noticed = {
            slot: of_labels(reader.noticed, self.labels) for slot, reader in self.readers.items()
        }
        if (most := self.frames_max) is None:
            return noticed
        for slot, reader in self.readers.items():
            for label in self.labels:
                length = reader.length(label.id)
                if length > most:
                    told = noticed[slot].get(label.id)
                    cut = f"the model uses {most} of its {length} frames"
                    noticed[slot][label.id] = f"{told}; {cut}" if told else cut
        return noticed

    def split(self, fold: int, name: str) -> list[Label]:
        """Labels of one split of one fold.

        Raises:
            CacheError: If there are none.
        """
        found = [label for label in self.labels if label.splits[fold] == name]
        if not found:
            raise CacheError(
                f"no utterance of split {name!r}, fold {fold} has features in all slots "
                f"({sorted(self.readers)}); {len(self.dropped)} were left out: see rejected.csv "
                "of each cache folder"
            )
        return found

    def batch(self, labels: Sequence[Label]) -> Batch:
        """The padded streams of some utterances."""
        ids = tuple(label.id for label in labels)
        streams = {slot: self._stream(slot, ids) for slot in self.readers}
        numbers = [self.classes.index(label.label) for label in labels]
        return self._ready(Batch(streams, torch.tensor(numbers), ids))

    def dialogue_batch(self, dialogues: Sequence[Sequence[Label]]) -> Batch:
        """The padded dialogues, each the labels of its turns in order.

        Returns:
            Streams `[B, N, D]`, labels `[B, N]` with -1 at padding, and the ids of all turns,
            dialogue after dialogue.

        Raises:
            CacheError: If an utterance has another number of frames than one.
        """
        turns = [label for dialogue in dialogues for label in dialogue]
        ids = tuple(label.id for label in turns)
        mask = turns_mask([len(dialogue) for dialogue in dialogues])
        for slot, reader in self.readers.items():
            _check_pooled(slot, reader, ids)
        streams = {slot: self._turns(slot, ids, mask) for slot in self.readers}
        numbers = [self.classes.index(label.label) for label in turns]
        return self._ready(Batch(streams, stack_labels(numbers, mask), ids))

    def length(self, label: Label) -> int:
        """Frames of the longest stream, by which batches are formed."""
        return max(reader.length(label.id) for reader in self.readers.values())

    def typical(self, size: int) -> int:
        """`size` itself."""
        return size

    def counts(self, rows: Sequence[Sequence[Label]], size: int) -> list[int]:
        """All of `size` rows but the last."""
        return even_counts(len(rows), size)

    def made(self, make: Callable[[Rows], Batch], groups: Sequence[Rows]) -> Iterator[Batch]:
        """One ahead of the caller, or each as it is asked for."""
        return read_ahead(make, groups) if self.ahead else map(make, groups)

    def _stream(self, slot: str, ids: Sequence[str]) -> Stream:
        source = self.residents if slot in self.residents else self.readers
        return source[slot].batch(ids)

    def _turns(self, slot: str, ids: Sequence[str], mask: Tensor) -> Stream:
        if slot in self.residents:
            return self.residents[slot].turns(ids, mask)
        return stack_turns(self.readers[slot].batch(ids), mask)

    def _ready(self, batch: Batch) -> Batch:
        return pinned(batch) if self.pinned else batch


def of_labels(told: Mapping[str, str], labels: Sequence[Label]) -> dict[str, str]:
    """What is told of utterances by id, of those of some labels alone."""
    return {label.id: told[label.id] for label in labels if label.id in told}


def join(
    slots: Mapping[str, Path],
    labels: Sequence[Label],
    classes: Sequence[str],
    *,
    verify: bool = True,
) -> Examples:
    """Open the caches of all slots and keep the utterances that all of them have.

    Args:
        slots: Cache folder by slot.
        labels: All labels of the corpus.
        classes: Class names.
        verify: Whether to read all shards once and compare checksums.

    Raises:
        CacheError: If a cache is missing or damaged.
    """
    readers = {slot: CacheReader(folder, verify=verify) for slot, folder in slots.items()}
    rejected = {slot: reader.rejected for slot, reader in readers.items()}
    dropped: dict[str, str] = {}
    for label in labels:
        reasons: dict[str, str] = {}
        for slot, reader in readers.items():
            if label.id in reader:
                continue
            if label.id not in rejected[slot]:
                raise CacheError(
                    f"{reader.folder} neither holds utterance {label.id!r} nor says why not: "
                    "a shard is missing, or it is another corpus; run `dvc repro` or `dvc pull`"
                )
            reasons[slot] = rejected[slot][label.id]
        if reasons:
            dropped[label.id] = describe(reasons)
    kept = [label for label in labels if label.id not in dropped]
    return Examples(readers, kept, classes, dropped)


def _check_pooled(slot: str, reader: CacheReader, ids: Sequence[str]) -> None:
    for id in ids:
        if (length := reader.length(id)) != 1:
            raise CacheError(
                f"the {slot} slot: {reader.folder} holds {length} frames of utterance {id!r}, and "
                "a model over dialogues takes one vector a turn; fill the slot with an entry of "
                "`backbones` that has `pooling: mean` (or `first`)"
            )
