"""What becomes of the results of one backbone entry: rows, rejections, and shards in its store."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.backbone.base import Backbone
from features.backbone.entry import BackboneEntry, store_key
from features.backbone.windows import Window, windowed_in
from features.cache.shard import Row, SpooledRow
from features.cache.writer import CacheWriter, Spool
from features.corpus.utterance import Utterance
from features.errors import CacheError
from features.extraction.batches import Prepared, too_large_for
from features.extraction.forecast import cache_bytes
from features.extraction.joining import Joiner
from features.extraction.plan import Cut, PlannedShard
from features.extraction.runner import Result, Runner
from features.extraction.sizes import Sizes
from features.extraction.store import WorkStore
from features.process.devices import entered
from features.process.machine_errors import with_machine_errors

HELD_BYTES = 256 << 20  # rows of a shard in memory; what is more waits in a temporary file
ALIGNED = 64  # bytes: rows begin at multiples of it


@dataclass
class Tally:
    """Counts of utterances by what was done with them.

    Attributes:
        computed: Utterances that went through the backbone.
        copied: Utterances whose rows were copied from the work store or from equal utterances.
        failed: Utterances that were tried and rejected.
        seconds: Seconds of audio that went through the backbone.
    """

    computed: int = 0
    copied: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, more: Tally) -> None:
        """Add the counts of another process."""
        self.computed += more.computed
        self.copied += more.copied
        self.failed += more.failed
        self.seconds += more.seconds


@dataclass
class ShardRows:
    """Rows of a shard, as they are computed.

    Attributes:
        planned: Its utterances.
        contents: Content hash by id.
        todo: Utterances to compute, by content hash: equal ones are computed once.
        rows: Finished rows by content hash.
        rejected: Reasons by content hash.
        deviation: Change by a reduced precision, once it is measured.
        joiner: Joins the windows of its long recordings, if any.
        folder: Folder for a temporary file of the rows that are not held in memory.
        held: Bytes of memory that rows take.
    """

    planned: PlannedShard
    contents: dict[str, str]
    folder: Path
    todo: dict[str, Utterance] = field(default_factory=dict)
    rows: dict[str, Row | SpooledRow] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    deviation: float | None = None
    joiner: Joiner | None = None
    held: int = 0
    _block: NDArray[np.uint8] | None = None
    _spool: Spool | None = None

    def keep(self, row: Row | SpooledRow) -> None:
        """Keep a finished row until the shard is written, in memory or in a temporary file."""
        if isinstance(row, Row):
            fits = self.held + row.frames.nbytes <= HELD_BYTES
            row = self._copied(row) if fits else self._spooled(row)
        self.rows[row.content] = row

    def _copied(self, row: Row) -> Row:
        if self._block is None:
            # The system gives pages of it as they are written. Rows that stayed where they were
            # made might be views, each of which keeps its whole batch.
            self._block = np.empty(HELD_BYTES, np.uint8)
        frames, begin = row.frames, self.held
        copy = self._block[begin : begin + frames.nbytes].view(frames.dtype).reshape(frames.shape)
        copy[...] = frames
        self.held += -(-frames.nbytes // ALIGNED) * ALIGNED
        return dataclasses.replace(row, frames=copy)

    def let_go(self) -> None:
        """Free the memory of the rows, and their temporary file."""
        self.rows.clear()
        self._block = self._spool = self.joiner = None

    def _spooled(self, row: Row) -> SpooledRow:
        if self._spool is None:
            self._spool = Spool(self.folder)
        begin, frames = self._spool.bytes, row.frames
        self._spool.append(frames)
        stored = self._spool.since(begin, frames.dtype.name, frames.shape[1:])
        return SpooledRow(row.id, row.content, stored, row.rounding)


class Output:
    """One entry's backbone on a device, and its shards in the work store.

    Args:
        entry: Backbone entry of params.yaml.
        root: Root of the work store.
        device: Device that the network runs on.
    """

    def __init__(self, entry: BackboneEntry, root: Path, device: torch.device) -> None:
        self.entry, self.device = entry, device
        self.backbone: Backbone = entry.build()
        self.provenance = entry.provenance(self.backbone)
        self.store = WorkStore(root, store_key(self.backbone, self.provenance))
        self.sizes = Sizes.of(self.backbone.spec, self.backbone.reads, self.provenance)
        self.windowed = windowed_in(self.backbone)
        self.runner = Runner(self.backbone, device, entry.compute_dtype)
        # That of windows gives frames, which are pooled once all are there.
        window = self.windowed or self.backbone
        self.window_runner = Runner(window, device, entry.compute_dtype)
        self.writer = CacheWriter(
            spec=self.backbone.spec,
            provenance=self.provenance,
            dtype=entry.stored_as(self.backbone),
        )

    def begin(self, planned: PlannedShard) -> ShardRows:
        """A shard with the rows that the store has of it already."""
        ids = (utterance.id for utterance in planned.utterances)
        contents = dict(zip(ids, planned.contents, strict=True))
        shard = ShardRows(planned, contents, self.store.folder)
        for utterance, content in zip(planned.utterances, planned.contents, strict=True):
            shard.todo.setdefault(content, utterance)
        for row in self.store.rows(list(shard.todo)):
            shard.keep(row)
            del shard.todo[row.content]
        return shard

    def bytes_of(self, cuts: Iterable[Cut]) -> int:
        """Approximate size of the features of some shards."""
        return cache_bytes(cuts, self.sizes)

    def runner_of(self, utterances: Sequence[Utterance]) -> Runner:
        """Runner of a batch, of windows or of whole utterances."""
        return self.window_runner if is_window(utterances) else self.runner

    def keep(
        self, shard: ShardRows, item: Prepared, results: Sequence[Result], tally: Tally
    ) -> None:
        """Round the results of a batch."""
        contents, before = shard.contents, len(shard.rejected)
        # Of several windows of a recording, the first tells why.
        found = {contents[id]: reason for id, reason in item.rejected.items()}
        shard.rejected = found | shard.rejected
        for result in results:
            with entered(self.device):  # threads begin on the first GPU, and would use it here
                stream = result.wait()
            if stream is None:
                (alone,) = result.utterances
                shard.rejected[contents[alone.id]] = too_large_for(
                    self.device, self.backbone, alone
                )
                continue
            for utterance, values in zip(result.utterances, stream.unpad(), strict=True):
                content = contents[utterance.id]
                if content in shard.rejected:  # for another of its windows
                    continue
                # numpy has no bfloat16, which a network may return; float32 holds it exactly.
                frames = values.float() if values.is_floating_point() else values
                if frames.is_floating_point() and not finite(frames):
                    shard.rejected[content] = "its features are not finite"
                    continue
                try:
                    row = self._row(shard, utterance, content, frames)
                except CacheError as error:  # a value that the stored dtype cannot hold
                    shard.rejected[content] = str(error)
                    continue
                tally.seconds += utterance.seconds or 0.0
                if row is not None:
                    shard.keep(row)
                    tally.computed += 1
        tally.failed += len(shard.rejected) - before

    def _row(
        self, shard: ShardRows, utterance: Utterance, content: str, frames: Tensor
    ) -> Row | SpooledRow | None:
        """Row of an utterance; None if only a window of it was given, and others follow."""
        if not isinstance(utterance, Window):
            return self.writer.round(utterance.id, content, frames.numpy())
        if shard.joiner is None:
            shard.joiner = Joiner(self.backbone, self.writer, self.store.folder)
        return shard.joiner.add(utterance, content, frames)

    def write(self, shard: ShardRows, kept: Future[None]) -> None:
        """Write a shard once its last batch was kept."""
        kept.result()
        planned, rejected = shard.planned, {}
        rows: list[Row | SpooledRow] = []
        for utterance, content in zip(planned.utterances, planned.contents, strict=True):
            row = shard.rows.get(content)
            if row is None:
                rejected[utterance.id] = shard.rejected[content]
            else:
                rows.append(dataclasses.replace(row, id=utterance.id))
        path = self.store.path(planned.fingerprint)
        deviation = shard.deviation
        with_machine_errors(self.writer.write, path, rows, rejected=rejected, deviation=deviation)
        shard.let_go()
        self.store.add(planned.fingerprint, device=str(self.device))


def finite(frames: Tensor) -> bool:
    """Whether all values are finite; `torch.isfinite` would take the memory of a wide row again."""
    if not frames.numel():
        return True
    return all(math.isfinite(end) for end in frames.aminmax())


def is_window(batch: Sequence[Utterance]) -> bool:
    """Whether a batch is one of windows of long recordings."""
    return bool(batch) and isinstance(batch[0], Window)
