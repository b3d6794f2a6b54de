"""Batches of cached features and labels.

Rows come from the memory-mapped shards and are copied once, into the padded batch; or from a copy
on the device (`pipeline.cached.resident`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.cache.reader import CacheReader
from features.corpus.manifest import Label
from features.errors import CacheError
from features.process.shared import SharedArrays
from features.stream import Stream, StreamSpec
from pipeline.data.batching import pinned, read_ahead
from pipeline.data.dialogues import stack_labels, stack_turns, turns_mask
from pipeline.data.label_table import LabelTable, in_split
from pipeline.data.layer_views import open_cache
from pipeline.data.source import T, even_sizes
from pipeline.data.targets import TargetReader, class_numbers
from pipeline.model.batch import Batch
from pipeline.model.outputs import Outputs


class Resident(Protocol):
    """Copy of a slot's frames on a device."""

    def batch(self, ids: Sequence[str]) -> Stream:
        """Some utterances, padded, as `CacheReader.batch` returns them."""
        ...

    def turns(self, ids: Sequence[str], mask: Tensor) -> Stream:
        """Pooled utterances as turns, as `stack_turns` returns them."""
        ...


@dataclass(frozen=True)
class Examples:
    """Labelled utterances that every filled slot has cached features of.

    Attributes:
        readers: Cache by slot.
        labels: Usable labels, in corpus order.
        classes: Class names, in the order of the model's outputs.
        dropped: Reasons by id and slot, of utterances that a slot lacks.
        residents: Copies of frames on the device by slot; slots may lack one.
        ahead: Whether a thread makes batches before they are asked for: `pipeline.data.batching`.
        pinned: Whether batches are made in page-locked memory, from which a GPU copies by itself.
        frames_max: Frames of an utterance that the model uses by slot, for `noticed`; of the other
            slots all.
        targets: What a model learns; None: one class an utterance.
        sizes: `frames`, `[N]`: length of each label's longest stream; None: read when asked for.
    """

    readers: Mapping[str, CacheReader]
    labels: Sequence[Label]
    classes: Sequence[str]
    dropped: Mapping[str, Mapping[str, str]]
    residents: Mapping[str, Resident] = field(default_factory=dict)
    ahead: bool = False
    pinned: bool = False
    frames_max: Mapping[str, int] = field(default_factory=dict)
    targets: TargetReader | None = None
    sizes: Mapping[str, NDArray[np.int64]] | None = None

    def compact(self, folder: Path) -> Examples:
        """The same by arrays in files below a folder, of which processes share one copy."""
        labels = LabelTable.write(folder / "labels", self.labels)
        readers = {slot: of.compact(folder / slot) for slot, of in self.readers.items()}
        frames = {"frames": self._measured(self.labels)}
        sizes = SharedArrays.write(folder / "sizes", frames)
        return replace(self, labels=labels, readers=readers, sizes=sizes, dropped={})

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """Streams by slot."""
        return {slot: reader.spec for slot, reader in self.readers.items()}

    @cached_property
    def noticed(self) -> dict[str, dict[str, str]]:
        """Notices by slot and id, of utterances that are used in part.

        Read once: of a large corpus that takes as long as all its labels.
        """
        noticed = {
            slot: notices_of(self.labels, reader.noticed) for slot, reader in self.readers.items()
        }
        for slot, most in self.frames_max.items():
            for label in self.labels:
                length = self.readers[slot].length(label.id)
                if length > most:
                    notice = noticed[slot].get(label.id)
                    cut = f"the model uses {most} of its {length} frames"
                    noticed[slot][label.id] = f"{notice}; {cut}" if notice else cut
        return noticed

    def split(self, fold: int, name: str) -> Sequence[Label]:
        """Labels of one split of one fold.

        Raises:
            CacheError: If there are none.
        """
        found = in_split(self.labels, fold, name)
        if not found:
            raise CacheError(
                f"no utterance of split {name!r}, fold {fold} has features in all slots "
                f"({sorted(self.readers)}); {len(self.dropped)} were left out: see rejected.csv "
                "of each cache folder"
            )
        return found

    def batch(self, labels: Sequence[Label]) -> Batch:
        """Batch of some utterances, padded."""
        ids = tuple(label.id for label in labels)
        streams = {slot: self._stream(slot, ids) for slot in self.readers}
        numbers = torch.from_numpy(class_numbers(labels, self.classes))
        truth = self._reader(labels)
        targets = None if truth is None else truth.read(labels)
        return self._ready(Batch(streams, numbers, ids, targets=targets))

    def dialogue_batch(self, dialogues: Sequence[Sequence[Label]]) -> Batch:
        """Batch of some dialogues, padded, each given by the labels of its turns in order.

        Returns:
            Streams `[B, N, D]`, labels `[B, N]` with -1 at padding and at turns without a class,
            and the ids of all turns, dialogue after dialogue.

        Raises:
            CacheError: If an utterance has not exactly one frame.
        """
        turns = [label for dialogue in dialogues for label in dialogue]
        ids = tuple(label.id for label in turns)
        mask = turns_mask([len(dialogue) for dialogue in dialogues])
        for slot, reader in self.readers.items():
            _check_pooled(slot, reader, ids)
        streams = {slot: self._turns(slot, ids, mask) for slot in self.readers}
        numbers = class_numbers(turns, self.classes).tolist()
        truth = self._reader(turns)
        targets = None if truth is None else truth.read_dialogues(dialogues)
        return self._ready(Batch(streams, stack_labels(numbers, mask), ids, targets=targets))

    def lengths(self, labels: Sequence[Label]) -> NDArray[np.float64]:
        """Frames of the longest stream of some of the utterances."""
        if self.sizes is not None and isinstance(labels, LabelTable):
            return self.sizes["frames"][labels.rows].astype(np.float64)
        return self._measured(labels).astype(np.float64)

    def _measured(self, labels: Sequence[Label]) -> NDArray[np.int64]:
        ids = [label.id for label in labels]
        each = [reader.lengths(ids) for reader in self.readers.values()]
        return np.asarray(np.max(each, axis=0), np.int64)

    def typical_rows(self, size: int) -> int:
        """`size` itself."""
        return size

    def batch_sizes(self, rows: Sequence[Sequence[Label]], size: int) -> list[int]:
        """`size` rows in all batches but the last."""
        return even_sizes(len(rows), size)

    def make_all(self, make: Callable[[T], Batch], members: Sequence[T]) -> Iterator[Batch]:
        """Batches in order, one ahead of the caller or each as it is asked for."""
        return read_ahead(make, members) if self.ahead else map(make, members)

    def _reader(self, labels: Sequence[Label]) -> TargetReader | None:
        if self.targets is None and any(label.label is None for label in labels):
            # Without `Targets` a turn that has no class could not be told from padding.
            return TargetReader(("classes",), Outputs(tuple(self.classes)))
        return self.targets

    def _stream(self, slot: str, ids: Sequence[str]) -> Stream:
        source = self.residents if slot in self.residents else self.readers
        return source[slot].batch(ids)

    def _turns(self, slot: str, ids: Sequence[str], mask: Tensor) -> Stream:
        if slot in self.residents:
            return self.residents[slot].turns(ids, mask)
        return stack_turns(self.readers[slot].batch(ids), mask)

    def _ready(self, batch: Batch) -> Batch:
        return pinned(batch) if self.pinned else batch


def notices_of(labels: Sequence[Label], notices: Mapping[str, str]) -> dict[str, str]:
    """Notices of a cache by id, restricted to the utterances of some labels."""
    return {label.id: notices[label.id] for label in labels if label.id in notices}


def join(
    slots: Mapping[str, Path],
    labels: Sequence[Label],
    classes: Sequence[str],
    *,
    layers: Mapping[Any, int] | None = None,
    verify: bool = True,
) -> Examples:
    """Open the caches of all slots and keep the utterances that all of them have.

    Args:
        slots: Cache folder by slot.
        labels: All labels of the corpus.
        classes: Class names, in the order of the model's outputs.
        layers: Hidden state that is read of a stack, by slot (`inputs.layer`); None: all of each.
        verify: Whether to read all shards once and compare checksums.

    Raises:
        CacheError: If a cache is missing or damaged.
        ParamsError: If one does not hold the state that is to be read.
    """
    readers = {
        slot: open_cache(folder, slot, layers, verify=verify) for slot, folder in slots.items()
    }
    # Once: the property reads its file at every access.
    rejected = {slot: reader.rejected for slot, reader in readers.items()}
    dropped: dict[str, dict[str, str]] = {}
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
            dropped[label.id] = reasons
    kept = [label for label in labels if label.id not in dropped]
    return Examples(readers, kept, classes, dropped)


def _check_pooled(slot: str, reader: CacheReader, ids: Sequence[str]) -> None:
    for id in ids:
        if (length := reader.length(id)) != 1:
            raise CacheError(
                f"the {slot} slot: {reader.folder} holds {length} frames of utterance {id!r}, and "
                "a model over dialogues takes one vector a turn; fill the slot with an entry of "
                "`backbones` that has `pooling: mean` (or `first`, `std`, `mean_std`)"
            )
