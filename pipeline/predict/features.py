"""Features of some utterances, computed now and kept in memory: what a cache holds, without one.

They come out of extraction itself (`features.extraction.extractor`): its batches, its halving of
what does not fit a device, its reasons for rejecting, its rounding. It writes a shard into a
temporary folder, which is read and removed, so that predictions equal those on a cache.

Shapes: B batch, T time, N turns, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.backbone.base import Backbone, innermost, lacks, notices
from features.backbone.entry import BackboneEntry, fingerprint
from features.cache.shard import read_shard
from features.corpus.manifest import Label, Manifest
from features.corpus.utterance import Utterance
from features.errors import HeronryError
from features.extraction.extractor import Extractor, Recipe
from features.extraction.output import Tally
from features.extraction.plan import ShardPlan, seconds_of
from features.extraction.store import WorkStore
from features.files.writing import remove_folder
from features.stream import Stream, StreamSpec
from pipeline.data.dialogues import stack_turns, turns_mask
from pipeline.data.source import T
from pipeline.data.targets import TargetReader
from pipeline.model.batch import Batch

BATCH_BYTES = 64 << 20  # of the frames of a batch, in float32
SHARD_SECONDS = 3600.0  # of a temporary shard


@dataclass(frozen=True)
class SlotFeatures:
    """Features of one slot.

    Attributes:
        frames: Frames by id, `[T, D]` or bins `[T]`, as a cache stores them.
        missing: Ids of utterances that have nothing for this slot to read.
        rejected: Reasons by id of those that cannot be computed.
        noticed: Notices by id: what is left out of an utterance.
    """

    frames: Mapping[str, Tensor]
    missing: frozenset[str]
    rejected: Mapping[str, str]
    noticed: Mapping[str, str]


class LiveBackbone:
    """A backbone that computes features of utterances on a device.

    Args:
        entry: Its entry.
        device: Where its network runs.
        scratch: Folder for temporary shards, this process's alone.

    Attributes:
        extractor: Extractor of the backbone.
    """

    def __init__(self, entry: BackboneEntry, device: str, scratch: Path) -> None:
        self.extractor = Extractor(Recipe(entry, scratch), device)

    def compute(self, utterances: Sequence[Utterance]) -> Iterator[None]:
        """Compute some utterances, yielding once for each; `found` holds the result then."""
        backbone, store = self.extractor.backbone, self.extractor.store
        reads = backbone.reads
        if reads_references(backbone):
            utterances = [replace(u, asr=u.asr if u.text is None else u.text) for u in utterances]
        manifest = Manifest("new", tuple(utterances), shard_seconds=SHARD_SECONDS)
        plan = ShardPlan.of(manifest, reads, self.extractor.own.sizes)
        missing = frozenset(each.id for each in utterances if lacks(each, reads))
        yield from (None for _ in missing)
        try:
            yield from (None for _ in self.extractor.run(plan, Tally(), seconds=seconds_of(plan)))
            frames: dict[str, Tensor] = {}
            rejected: dict[str, str] = {}
            for cut in plan.cuts:
                shard = read_shard(store.path(cut.fingerprint))
                rejected |= shard.rejected
                for number, id in enumerate(shard.ids):
                    first, last = shard.offsets[number : number + 2].tolist()
                    frames[id] = shard.stored.tensor[first:last]
        finally:
            # Mapped pages outlive their files; no row is copied from an earlier part.
            remove_folder(store.folder)
            root, name = store.folder.parent, fingerprint(self.extractor.provenance)
            self.extractor.own.store = WorkStore(root, name)
        used = [each for each in utterances if each.id in frames]
        self.found = SlotFeatures(frames, missing, rejected, dict(notices(backbone, used)))


def reads_references(backbone: Backbone) -> bool:
    """Whether it reads recognised words only where no others are known (`where: missing`)."""
    return getattr(innermost(backbone), "where", "") == "missing"


@dataclass(frozen=True)
class NewExamples:
    """Utterances without labels, with the features of all slots (an `ExampleSource`).

    A slot that an utterance lacks is one frame of zeros: what modality dropout gives a model in
    training, and the condition `without_<slot>`, for one frame or for many.

    Attributes:
        labels: The utterances.
        reader: What the model learns.
        specs: Streams by slot.
        frames: Frames by slot and id.
    """

    labels: Sequence[Label]
    reader: TargetReader
    specs: dict[str, StreamSpec]
    frames: Mapping[str, Mapping[str, Tensor]]
    dropped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    noticed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the model's outputs."""
        return self.reader.outputs.classes

    @property
    def targets(self) -> TargetReader:
        """What the model learns."""
        return self.reader

    def split(self, fold: int, name: str) -> list[Label]:
        """Refuse: nothing here belongs to a split."""
        raise HeronryError(
            f"new recordings have no split {name!r} of fold {fold}; predict them all"
        )

    def batch(self, labels: Sequence[Label]) -> Batch:
        """Batch of some utterances, padded."""
        ids = tuple(label.id for label in labels)
        streams = {slot: self._stream(slot, ids) for slot in self.specs}
        targets = self.reader.read(labels)
        return Batch(streams, targets.labels, ids, targets=targets)

    def dialogue_batch(self, dialogues: Sequence[Sequence[Label]]) -> Batch:
        """Batch of some dialogues, padded."""
        ids = tuple(label.id for dialogue in dialogues for label in dialogue)
        mask = turns_mask([len(dialogue) for dialogue in dialogues])
        streams = {slot: stack_turns(self._stream(slot, ids), mask) for slot in self.specs}
        targets = self.reader.read_dialogues(dialogues)
        return Batch(streams, targets.labels, ids, targets=targets)

    def length(self, label: Label) -> float:
        """Frames of an utterance's longest stream."""
        return max(len(self._frames(slot, label.id)) for slot in self.specs)

    def lengths(self, labels: Sequence[Label]) -> NDArray[np.float64]:
        """`length` of each."""
        return np.array([self.length(label) for label in labels], np.float64)

    def typical_rows(self, size: int) -> int:
        """`size` itself."""
        return size

    def batch_sizes(self, rows: Sequence[Sequence[Label]], size: int) -> list[int]:
        """At most `size` rows, whose padded frames take at most `BATCH_BYTES`."""
        width = 4 * sum(spec.dim for spec in self.specs.values())
        counts: list[int] = []
        longest = 0.0
        for row in rows:  # a dialogue has one frame a turn
            length = len(row) * max(map(self.length, row))
            longest = max(longest, length)
            if counts and counts[-1] < size and (counts[-1] + 1) * longest * width <= BATCH_BYTES:
                counts[-1] += 1
            else:
                counts.append(1)
                longest = length
        return counts

    def make_all(self, make: Callable[[T], Batch], members: Sequence[T]) -> Iterator[Batch]:
        """`map(make, members)`."""
        return map(make, members)

    def _frames(self, slot: str, id: str) -> Tensor:
        found = self.frames[slot].get(id)
        return torch.zeros(1, self.specs[slot].dim) if found is None else found

    def _stream(self, slot: str, ids: Sequence[str]) -> Stream:
        kind = torch.float32 if self.specs[slot].bins is None else torch.int64
        return Stream.pad([self._frames(slot, id).to(kind) for id in ids])
