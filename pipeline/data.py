"""Cached features and labels as batches.

Rows come from the memory-mapped shards and are copied once, into the padded batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from features.cache import CacheReader
from features.errors import CacheError
from features.manifest import Label
from features.stream import StreamSpec
from pipeline.batch import Batch
from pipeline.left_out import describe

POOL = 16  # batches that are sorted by length together


@dataclass(frozen=True)
class Examples:
    """Utterances that every filled slot has features for.

    Attributes:
        readers: Cache by slot.
        labels: In corpus order; only usable ones.
        classes: Names, in the order of the model's outputs.
        dropped: Reasons by id of those that a slot lacks, with every slot that lacks it.
    """

    readers: Mapping[str, CacheReader]
    labels: Sequence[Label]
    classes: Sequence[str]
    dropped: Mapping[str, str]

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """Streams by slot."""
        return {slot: reader.spec for slot, reader in self.readers.items()}

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
        streams = {slot: reader.batch(ids) for slot, reader in self.readers.items()}
        numbers = [self.classes.index(label.label) for label in labels]
        return Batch(streams, torch.tensor(numbers), ids)

    def length(self, label: Label) -> int:
        """Frames of the longest stream, by which batches are formed."""
        return max(reader.length(label.id) for reader in self.readers.values())


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


def shuffled_batches(
    examples: Examples, labels: Sequence[Label], size: int, generator: np.random.Generator
) -> Iterator[Batch]:
    """All utterances once, in random batches of about equal length.

    The order is random; within each pool of 16 batches utterances are sorted by length, which
    saves padding, and the batches of a pool come in random order again.
    """
    order = generator.permutation(len(labels))
    for start in range(0, len(order), POOL * size):
        pool = sorted(order[start : start + POOL * size], key=lambda i: examples.length(labels[i]))
        groups = [pool[i : i + size] for i in range(0, len(pool), size)]
        for index in generator.permutation(len(groups)):
            yield examples.batch([labels[i] for i in groups[index]])


def ordered_batches(
    examples: Examples, labels: Sequence[Label], size: int
) -> Iterator[tuple[list[int], Batch]]:
    """All utterances once, by length, each batch with the places of its rows in `labels`."""
    order = sorted(range(len(labels)), key=lambda i: examples.length(labels[i]))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield places, examples.batch([labels[i] for i in places])
