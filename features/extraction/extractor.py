"""One backbone on one device, running over shards."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch

from features.backbone.base import Backbone, module_of
from features.backbone.entry import BackboneEntry, fingerprint
from features.cache.shard import Row
from features.cache.writer import CacheWriter
from features.corpus.utterance import Utterance
from features.errors import CacheError
from features.extraction.batches import (
    Prepared,
    default_batch_seconds,
    default_workers,
    form_batches,
    prepare_ahead,
)
from features.extraction.plan import PlannedShard, seconds_of
from features.extraction.runner import Result, Runner
from features.extraction.store import WorkStore
from features.process.machine_errors import with_machine_errors
from features.process.memory import too_large


@dataclass
class Tally:
    """What was done.

    Attributes:
        computed: Utterances that went through the backbone.
        copied: Utterances copied from other shards in the work store, or from their like.
        failed: Utterances that were tried, and rejected.
        seconds: Seconds of audio that went through the backbone.
    """

    computed: int = 0
    copied: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, more: Tally) -> None:
        """Sum up."""
        self.computed += more.computed
        self.copied += more.copied
        self.failed += more.failed
        self.seconds += more.seconds


@dataclass(frozen=True)
class Recipe:
    """All that it takes to make an extractor, here or in another process.

    Attributes:
        entry: The backbone as params.yaml describes it.
        store: Root of the work store.
        batch_seconds: Budget of a batch in padded seconds; None: by device.
        workers: Processes that prepare inputs; None: as many as pay off.
    """

    entry: BackboneEntry
    store: Path
    batch_seconds: float | None = None
    workers: int | None = None


IN_FLIGHT = 4  # batches and shards that may wait to be kept and written
MAX_LANES = 8  # batches side by side on a CPU: each holds the activations of a whole network


@dataclass
class _Pending:
    """A shard on its way: by content, so that equal utterances are computed once."""

    planned: PlannedShard
    contents: dict[str, str]  # by id
    rows: dict[str, Row] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    batches: int = 0
    deviation: float | None = None


class Extractor:
    """Runs one backbone over shards.

    Args:
        recipe: Backbone, store, and how to batch.
        device: Where the network runs.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe, self.device, self.entry = recipe, torch.device(device), recipe.entry
        self.backbone: Backbone = self.entry.build()
        self.provenance = self.entry.provenance(self.backbone)
        self.store = WorkStore(recipe.store, fingerprint(self.provenance))
        self.runner = Runner(self.backbone, self.device, self.entry.compute_dtype)
        self.writer = CacheWriter(
            spec=self.backbone.spec,
            provenance=self.provenance,
            dtype=self.entry.stored_as(self.backbone),
        )

    def run(self, shards: Sequence[PlannedShard], tell: Tally) -> Iterator[int]:
        """Finish shards in the store, yielding once per utterance.

        A shard all of whose utterances were rejected is written empty, so that numbering stays.
        """
        lined_up: deque[tuple[_Pending, int]] = deque()
        prepared = prepare_ahead(
            self.backbone,
            self._line_up(shards, lined_up, tell),
            workers=self._workers(shards),
            device=self.device,
        )
        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1) as keeper, ThreadPoolExecutor(1) as writer:
            for item, results in self._launched(prepared):
                pending, count = lined_up.popleft()
                if pending.deviation is None:
                    pending.deviation = self.runner.deviation(item)
                kept = keeper.submit(self._keep, pending, item, results, tell)
                waiting.append(kept)
                pending.batches -= 1
                if not pending.batches:
                    waiting.append(writer.submit(self._write, pending, kept))
                while len(waiting) > IN_FLIGHT:
                    waiting.popleft().result()
                yield from (1 for _ in range(count))
            for future in waiting:
                future.result()

    def _launched(self, items: Iterator[Prepared]) -> Iterator[tuple[Prepared, list[Result]]]:
        """Each batch with its results, in order.

        On a CPU batches are computed side by side, each with one thread: faster than one batch
        with all of them, and what is stored does not depend on the number of cores.
        """
        if not self._side_by_side() or module_of(self.backbone) is None:
            for item in items:
                yield _checked(item), self.runner.launch(item)
            return
        threads = torch.get_num_threads()
        lanes = min(MAX_LANES, threads)
        going: deque[tuple[Prepared, Future[list[Result]]]] = deque()
        # This thread too, which prepares inputs: parallel loops would wait for cores in use.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (1,)) as pool:
                for item in items:
                    going.append((_checked(item), pool.submit(self.runner.launch, item)))
                    if len(going) > lanes:
                        yield self._settled(going)
                while going:
                    yield self._settled(going)
        finally:
            torch.set_num_threads(threads)

    def _settled(
        self, going: deque[tuple[Prepared, Future[list[Result]]]]
    ) -> tuple[Prepared, list[Result]]:
        """The first of the batches under way, once more by itself if the memory was too little."""
        item, future = going.popleft()
        results = future.result()
        if any(result.stream is None for result in results):
            wait([other for _, other in going])
            results = self.runner.launch(item)
        return item, results

    def _side_by_side(self) -> bool:
        """Whether batches are small enough for several at once, on a CPU."""
        return self.device.type == "cpu" and not self.recipe.batch_seconds

    @property
    def budget(self) -> float:
        """Padded seconds of a batch; 0: one utterance."""
        given = self.recipe.batch_seconds
        return default_batch_seconds(self.backbone, self.device) if given is None else given

    def missing(self, planned: PlannedShard) -> PlannedShard | None:
        """The part of a shard that the store has no rows for; None if it has them all."""
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
        tell: Tally,
    ) -> Iterator[list[Utterance]]:
        """Batches of all shards, in order; asked for a little ahead of the device."""
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
            tell.copied += copied
            batches = list(form_batches(self.backbone, todo.values(), seconds=self.budget))
            pending.batches = len(batches) + 1
            # An empty batch first: it tells of what is copied, and carries a shard that is whole.
            for batch, count in [([], copied), *((batch, len(batch)) for batch in batches)]:
                lined_up.append((pending, count))
                yield batch

    def _keep(self, pending: _Pending, item: Prepared, results: list[Result], tell: Tally) -> None:
        """Round what came back; runs in a thread of its own."""
        contents, before = pending.contents, len(pending.rejected)
        pending.rejected |= {contents[id]: reason for id, reason in item.rejected.items()}
        for result in results:
            stream = result.wait()
            if stream is None:
                alone = contents[result.utterances[0].id]
                pending.rejected[alone] = too_large(self.device)
                continue
            for utterance, values in zip(result.utterances, stream.unpad(), strict=True):
                content = contents[utterance.id]
                frames = values.float() if values.is_floating_point() else values
                if frames.is_floating_point() and not bool(torch.isfinite(frames).all()):
                    pending.rejected[content] = "its features are not finite"
                    continue
                try:
                    row = self.writer.round(utterance.id, content, frames.numpy())
                except CacheError as error:  # a value that the stored dtype cannot hold
                    pending.rejected[content] = str(error)
                    continue
                pending.rows[content] = row
                tell.computed += 1
                tell.seconds += utterance.seconds or 0.0
        tell.failed += len(pending.rejected) - before

    def _write(self, pending: _Pending, kept: Future[None]) -> None:
        """Seal a shard once its last batch was kept; runs in the writer's thread."""
        kept.result()
        planned, rows, rejected = pending.planned, [], {}
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


def _checked(item: Prepared) -> Prepared:
    if item.error is not None:
        raise item.error
    return item
