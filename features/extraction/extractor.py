"""Computes shards with one backbone on one device.

A shard's batches are prepared in worker processes, computed on the device, rounded and kept by one
thread, and written by another. Equal utterances are computed once; rows that the work store has are
copied.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from features.backbone.base import Backbone, module_of
from features.backbone.entry import BackboneEntry, fingerprint
from features.backbone.windows import Window, windowed_in
from features.cache.shard import Row, SpooledRow
from features.cache.writer import CacheWriter
from features.corpus.utterance import Utterance
from features.errors import CacheError
from features.extraction.batches import (
    Prepared,
    default_batch_seconds,
    default_workers,
    form_batches,
    prepare,
    prepare_ahead,
    too_large_for,
    window_batches,
)
from features.extraction.joining import Joiner
from features.extraction.plan import PlannedShard, seconds_of
from features.extraction.runner import Result, Runner
from features.extraction.store import WorkStore
from features.process.devices import entered
from features.process.machine_errors import with_machine_errors

IN_FLIGHT = 4  # batches and shards that may wait to be kept and written
MAX_LANES = 8  # batches side by side on a CPU: each holds the activations of a whole network


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


@dataclass(frozen=True)
class Recipe:
    """Arguments of an extractor, sent to other processes.

    Attributes:
        entry: Backbone entry of params.yaml.
        store: Root of the work store.
        batch_seconds: Budget of a batch in padded seconds; None: by device.
        workers: Processes that prepare inputs; None: as many as pay off.
    """

    entry: BackboneEntry
    store: Path
    batch_seconds: float | None = None
    workers: int | None = None


@dataclass
class _Pending:
    """A shard whose batches are being computed.

    Attributes:
        planned: Its utterances.
        contents: Content hash by id.
        rows: Finished rows by content hash, so that equal utterances are computed once.
        rejected: Reasons by content hash.
        batches: Number of batches that are not computed yet.
        deviation: Change by a reduced precision, once it is measured.
        joiner: Joins the windows of its long recordings, if any.
    """

    planned: PlannedShard
    contents: dict[str, str]
    rows: dict[str, Row | SpooledRow] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    batches: int = 0
    deviation: float | None = None
    joiner: Joiner | None = None


class Extractor:
    """Computes shards with one backbone on one device.

    Args:
        recipe: Backbone entry, store and batching.
        device: Device that the network runs on.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe, self.device, self.entry = recipe, torch.device(device), recipe.entry
        self.backbone: Backbone = self.entry.build()
        self.provenance = self.entry.provenance(self.backbone)
        self.store = WorkStore(recipe.store, fingerprint(self.provenance))
        self.windowed = windowed_in(self.backbone)
        whole, window = self.backbone, (self.windowed or self.backbone)
        self.runner = Runner(whole, self.device, self.entry.compute_dtype)
        self.window_runner = Runner(window, self.device, self.entry.compute_dtype)
        self.writer = CacheWriter(
            spec=self.backbone.spec,
            provenance=self.provenance,
            dtype=self.entry.stored_as(self.backbone),
        )

    def run(
        self, shards: Sequence[PlannedShard], tally: Tally, *, copied: bool = False
    ) -> Iterator[int]:
        """Finish shards in the store, yielding once per utterance.

        A shard without a usable utterance is written empty, so that the numbering has no gap.

        Args:
            shards: Shards to finish.
            tally: Counts, added to.
            copied: Whether the store has their rows, but for rejected ones: then no process is
                started, and the device is used for those alone.
        """
        # The loader asks `_line_up` for batches ahead of the device; `lined_up` says, in the same
        # order, which shard each of them belongs to.
        lined_up: deque[tuple[_Pending, int]] = deque()
        prepared = prepare_ahead(
            self.backbone,
            self._line_up(shards, lined_up, tally),
            workers=0 if copied else self._workers(shards),
            device=torch.device("cpu") if copied else self.device,
        )
        # Rounding overlaps with the next batch on the device, and writing with rounding. One thread
        # for each keeps their order.
        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1) as keeper, ThreadPoolExecutor(1) as writer:
            for item, results in self._launched(prepared):
                pending, count = lined_up.popleft()
                if pending.deviation is None:
                    pending.deviation = self._runner(item).deviation(item)
                kept = keeper.submit(self._keep, pending, item, results, tally)
                waiting.append(kept)
                pending.batches -= 1
                if not pending.batches:
                    waiting.append(writer.submit(self._write, pending, kept))
                # Bounds the memory of waiting results, and raises errors of the threads early.
                while len(waiting) > IN_FLIGHT:
                    waiting.popleft().result()
                yield from (1 for _ in range(count))
            for future in waiting:
                future.result()

    def _launched(self, items: Iterator[Prepared]) -> Iterator[tuple[Prepared, list[Result]]]:
        """Each batch with its results, in order.

        On a CPU several batches are computed at the same time with one thread each, which is faster
        than one batch with all threads, and makes results independent of the number of cores.
        """
        if not self._side_by_side() or module_of(self.backbone) is None:
            for item in items:
                yield _checked(item), self._launched_alone(item)
            return
        threads = torch.get_num_threads()
        lanes = min(MAX_LANES, threads)
        running: deque[tuple[Prepared, Future[list[Result] | None]]] = deque()
        # Also in this thread, which prepares inputs: its parallel loops would wait for busy cores.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (1,)) as pool:
                for item in items:
                    running.append(
                        (_checked(item), pool.submit(self._runner(item).launch_beside, item))
                    )
                    if len(running) > lanes:
                        yield self._settled(running)
                while running:
                    yield self._settled(running)
        finally:
            torch.set_num_threads(threads)

    def _settled(
        self, running: deque[tuple[Prepared, Future[list[Result] | None]]]
    ) -> tuple[Prepared, list[Result]]:
        """Results of the first batch under way, computed again alone if memory ran out."""
        item, future = running.popleft()
        results = future.result()
        if results is None:
            wait([other for _, other in running])
        if results is None or item.empty:
            results = self._launched_alone(item)
        return item, results

    def _launched_alone(self, item: Prepared) -> list[Result]:
        if item.empty:
            # The first of a shard. How its batches are cut must not depend on earlier shards, which
            # another run may have finished.
            self.runner.forget()
            self.window_runner.forget()
        runner, results = self._runner(item), []
        for result in runner.launch(item):
            if result.stream is None and len(item.utterances) > 1:
                # Cut out of a batch, a clip has the padding of the longest one, which may be all
                # that does not fit.
                alone = runner.launch(prepare(self.backbone, result.utterances))
                results += alone or [result]
            else:
                results.append(result)
        return results

    def _runner(self, item: Prepared) -> Runner:
        """Runner of a batch: that of windows gives frames, which are pooled once all are there."""
        return self.window_runner if _is_window(item.utterances) else self.runner

    def _side_by_side(self) -> bool:
        """Whether to compute several batches at once: on a CPU, if no larger ones are asked for."""
        return self.device.type == "cpu" and not self.recipe.batch_seconds

    @property
    def budget(self) -> float:
        """Padded seconds of a batch; 0: one utterance."""
        given = self.recipe.batch_seconds
        return default_batch_seconds(self.backbone, self.device) if given is None else given

    def missing(self, planned: PlannedShard) -> PlannedShard | None:
        """The part of a shard for which the store has no rows, if any."""
        pairs = {
            content: utterance
            for utterance, content in zip(planned.utterances, planned.contents, strict=True)
            if not self.store.holds(content)
        }
        if not pairs:
            return None
        return dataclasses.replace(planned, utterances=tuple(pairs.values()), contents=tuple(pairs))

    def _workers(self, shards: Sequence[PlannedShard]) -> int:
        if self.recipe.workers is not None:
            return self.recipe.workers
        return default_workers(self.backbone, self.device, seconds_of(shards))

    def _line_up(
        self,
        shards: Sequence[PlannedShard],
        lined_up: deque[tuple[_Pending, int]],
        tally: Tally,
    ) -> Iterator[list[Utterance]]:
        """Batches of all shards, in order; consumed a little ahead of the device."""
        for planned in shards:
            ids = (utterance.id for utterance in planned.utterances)
            pending = _Pending(planned, dict(zip(ids, planned.contents, strict=True)))
            todo: dict[str, Utterance] = {}
            for utterance, content in zip(planned.utterances, planned.contents, strict=True):
                if content in pending.rows or content in todo:
                    continue
                found = self.store.row(content)
                if found is None:
                    todo[content] = utterance
                else:
                    pending.rows[content] = found
            copied = len(planned.utterances) - len(todo)
            tally.copied += copied
            batches = self._batches(list(todo.values()))
            pending.batches = len(batches) + 1
            # An empty batch first: it counts the copied rows, and completes a shard without others.
            for batch, count in [([], copied), *((batch, _finished(batch)) for batch in batches)]:
                lined_up.append((pending, count))
                yield batch

    def _batches(self, utterances: list[Utterance]) -> list[list[Utterance]]:
        if self.windowed is None:
            return list(form_batches(self.backbone, utterances, seconds=self.budget))
        long = [utterance for utterance in utterances if self.windowed.is_long(utterance)]
        short = [utterance for utterance in utterances if not self.windowed.is_long(utterance)]
        return [
            *form_batches(self.backbone, short, seconds=self.budget),
            *window_batches(self.windowed, long, seconds=self.budget),
        ]

    def _keep(self, pending: _Pending, item: Prepared, results: list[Result], tally: Tally) -> None:
        """Round the results of a batch; runs in a thread of its own."""
        contents, before = pending.contents, len(pending.rejected)
        # Of several windows of a recording, the first tells why.
        found = {contents[id]: reason for id, reason in item.rejected.items()}
        pending.rejected = found | pending.rejected
        for result in results:
            with entered(self.device):  # threads begin on the first GPU, and would use it here
                stream = result.wait()
            if stream is None:
                (alone,) = result.utterances
                pending.rejected[contents[alone.id]] = too_large_for(
                    self.device, self.backbone, alone
                )
                continue
            for utterance, values in zip(result.utterances, stream.unpad(), strict=True):
                content = contents[utterance.id]
                if content in pending.rejected:  # for another of its windows
                    continue
                # numpy has no bfloat16, which a network may return; float32 holds it exactly.
                frames = values.float() if values.is_floating_point() else values
                if frames.is_floating_point() and not bool(torch.isfinite(frames).all()):
                    pending.rejected[content] = "its features are not finite"
                    continue
                try:
                    row = self._row(pending, utterance, content, frames)
                except CacheError as error:  # a value that the stored dtype cannot hold
                    pending.rejected[content] = str(error)
                    continue
                tally.seconds += utterance.seconds or 0.0
                if row is not None:
                    pending.rows[content] = row
                    tally.computed += 1
        tally.failed += len(pending.rejected) - before

    def _row(
        self, pending: _Pending, utterance: Utterance, content: str, frames: Tensor
    ) -> Row | SpooledRow | None:
        """Row of an utterance; None if only a window of it was given, and others follow."""
        if not isinstance(utterance, Window):
            return self.writer.round(utterance.id, content, frames.numpy())
        if pending.joiner is None:
            pending.joiner = Joiner(self.backbone, self.writer, self.store.folder)
        return pending.joiner.add(utterance, content, frames)

    def _write(self, pending: _Pending, kept: Future[None]) -> None:
        """Write a shard once its last batch was kept; runs in the writer's thread."""
        kept.result()
        planned, rejected = pending.planned, {}
        rows: list[Row | SpooledRow] = []
        for utterance, content in zip(planned.utterances, planned.contents, strict=True):
            row = pending.rows.get(content)
            if row is None:
                rejected[utterance.id] = pending.rejected[content]
            else:
                rows.append(dataclasses.replace(row, id=utterance.id))
        path = self.store.path(planned.fingerprint)
        deviation = pending.deviation
        with_machine_errors(self.writer.write, path, rows, rejected=rejected, deviation=deviation)
        self.store.add(planned.fingerprint, device=str(self.device))


def _is_window(batch: Sequence[Utterance]) -> bool:
    return bool(batch) and isinstance(batch[0], Window)


def _finished(batch: Sequence[Utterance]) -> int:
    """Number of utterances that are complete with a batch."""
    return sum(not isinstance(each, Window) or each.last for each in batch)


def _checked(item: Prepared) -> Prepared:
    if item.error is not None:
        raise item.error
    return item
