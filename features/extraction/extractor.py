"""Computes shards with one backbone on one device, and those of its siblings in the same pass.

A shard's batches are prepared in worker processes, computed on the device, rounded and kept by one
thread, and written by another. Equal utterances are computed once; rows that the work store has are
copied.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from features.backbone.base import Backbone, module_of
from features.backbone.entry import BackboneEntry
from features.backbone.siblings import not_computed_with, share_weights
from features.backbone.windows import Window
from features.corpus.utterance import Utterance
from features.errors import HeronryError
from features.extraction.batches import (
    Prepared,
    default_batch_seconds,
    default_workers,
    form_batches,
    prepare_ahead,
    window_batches,
)
from features.extraction.one_pass import OnePass
from features.extraction.output import Output, ShardRows, Tally, is_window
from features.extraction.plan import PlannedShard, ShardPlan
from features.extraction.runner import Result
from features.extraction.store import WorkStore
from features.process.memory import give_back_freed

IN_FLIGHT = 4  # batches and shards that may wait to be kept and written
IN_FLIGHT_BYTES = 512 << 20  # results of batches that may
GIVE_BACK_BYTES = 64 << 20  # of results, after which freed memory goes back to the system
ELSEWHERE = "its shards close elsewhere, by their bytes (`shard_bytes` of the corpus)"
MAX_LANES = 8  # batches side by side on a CPU: each holds the activations of a whole network


@dataclass(frozen=True)
class Recipe:
    """Arguments of an extractor, sent to other processes.

    Attributes:
        entry: Backbone entry of params.yaml.
        store: Root of the work store.
        batch_seconds: Budget of a batch in padded seconds; None: by device.
        workers: Processes that prepare inputs; None: as many as pay off.
        sharing: Extractors, a device each, among which the cores of this machine are divided.
    """

    entry: BackboneEntry
    store: Path
    batch_seconds: float | None = None
    workers: int | None = None
    sharing: int = 1


@dataclass
class _Work:
    """A shard whose batches are being computed.

    Attributes:
        outputs: The extractor's own output, and those of siblings that need the same batches.
        rows: Rows of the shard for each output.
        whole: Pass over batches of utterances.
        windows: Pass over batches of windows.
        batches: Number of batches that are not computed yet.
        dropped: Whether another process computes it.
    """

    outputs: list[Output]
    rows: list[ShardRows]
    batches: int = 0
    dropped: bool = False

    def __post_init__(self) -> None:
        # New ones for each shard: how its batches are cut must not depend on earlier shards.
        self.whole = OnePass([output.runner for output in self.outputs])
        self.windows = OnePass([output.window_runner for output in self.outputs])

    def one_pass(self, item: Prepared) -> OnePass:
        """The pass over a batch."""
        return self.windows if is_window(item.utterances) else self.whole

    def launched_alone(self, item: Prepared) -> list[list[Result]]:
        """Results of a batch for each output, on a device that computes nothing else."""
        if item.empty:
            # The first of a shard. Its cuts must not depend on shards that another run may have
            # finished.
            for output in self.outputs:
                output.runner.forget()
                output.window_runner.forget()
        return self.one_pass(item).launch(item)


_Lined = tuple[_Work, int]  # a batch's shard, and the utterances that are complete with it
_Launched = tuple[_Work, int, Prepared, list[list[Result]]]


class Extractor:
    """Computes shards with one backbone on one device.

    Args:
        recipe: Backbone entry, store and batching.
        device: Device that the network runs on.

    Attributes:
        own: Output of the entry.
        siblings: Outputs of other entries of the same network.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.own = Output(recipe.entry, recipe.store, self.device)
        self.siblings: list[Output] = []

    @property
    def entry(self) -> BackboneEntry:
        """Backbone entry of params.yaml."""
        return self.recipe.entry

    @property
    def backbone(self) -> Backbone:
        """The entry's backbone."""
        return self.own.backbone

    @property
    def provenance(self) -> dict[str, Any]:
        """All that decides the entry's numbers."""
        return self.own.provenance

    @property
    def store(self) -> WorkStore:
        """The entry's folder of the work store."""
        return self.own.store

    def take_along(
        self, entries: Iterable[BackboneEntry], todo: ShardPlan | None = None
    ) -> dict[str, str]:
        """Compute other entries of the same network in the same pass, in shards that lack them.

        Call it before anything is computed: all of them share one copy of the weights.

        Args:
            entries: The other entries.
            todo: Shards to compute, which must be theirs as well; None: they are known to be.

        Returns:
            Reasons by name of entries that are left out, since they cannot be computed so.
        """
        left_out = {}
        weights: dict[str, torch.nn.Parameter] = {}
        share_weights(self.backbone, weights)
        for entry in entries:
            try:
                output = Output(entry, self.recipe.store, self.device)
            except HeronryError as error:  # its own extraction says it in full
                left_out[entry.name] = str(error).partition("\n")[0]
                continue
            reason = not_computed_with(self.backbone, output.backbone)
            if any(output.store.folder == other.store.folder for other in self.outputs):
                reason = "its features are those of another entry of this pass"
            elif reason is None and not share_weights(output.backbone, weights):
                reason = "its weights are others"
            elif todo is not None and not todo.fits(output.sizes):
                reason = ELSEWHERE
            if reason is None:
                self.siblings.append(output)
            else:
                left_out[entry.name] = reason
        return left_out

    @property
    def outputs(self) -> list[Output]:
        """The entry's output, and those of its siblings."""
        return [self.own, *self.siblings]

    def reserve(self, fingerprints: Iterable[str]) -> None:
        """Exclude the shards of a plan from copying, in all stores (`WorkStore.reserve`)."""
        reserved = frozenset(fingerprints)
        for output in self.outputs:
            output.store.reserve(reserved)

    def run(
        self,
        shards: Iterable[PlannedShard],
        tally: Tally,
        *,
        seconds: float | None,
        begin: Callable[[PlannedShard], bool] = lambda _: True,
    ) -> Iterator[int]:
        """Finish shards in the store, yielding once per utterance.

        A shard without a usable utterance is written empty, so that the numbering has no gap.

        Args:
            shards: Shards to finish; the next one is asked for as soon as all batches of the last
                are being prepared, some time before these come to the device.
            tally: Counts of the entry itself, added to.
            seconds: Seconds of audio to compute, about: few of them are worth no processes. None:
                the store has all rows but for rejected ones, and the device is used for those
                alone.
            begin: Called, in order, with each shard that comes to the device. False: it is dropped,
                since another process computes it.
        """
        # The loader asks `_line_up` for batches ahead of the device; `lined_up` says, in the same
        # order, which shard each of them belongs to.
        lined_up: deque[_Lined] = deque()
        prepared = prepare_ahead(
            self.backbone,
            self._line_up(shards, lined_up),
            workers=0 if seconds is None else self._workers(seconds),
            device=torch.device("cpu") if seconds is None else self.device,
        )
        begun = _begun(prepared, lined_up, begin)
        # Rounding overlaps with the next batch on the device, and writing with rounding. One thread
        # for each keeps their order.
        waiting: deque[tuple[Future[None], int]] = deque()
        brought = 0
        with ThreadPoolExecutor(1) as keeper, ThreadPoolExecutor(1) as writer:
            for work, count, item, results in self._launched(begun):
                work.batches -= 1
                tally.copied += count if item.empty else 0
                for output, rows, found in zip(work.outputs, work.rows, results, strict=True):
                    if rows.deviation is None:
                        rows.deviation = output.runner_of(item.utterances).deviation(item)
                    counts = tally if output is self.own else Tally()
                    kept = keeper.submit(output.keep, rows, item, found, counts)
                    waiting.append((kept, sum(result.bytes for result in found)))
                    brought += waiting[-1][1]
                    if not work.batches:
                        waiting.append((writer.submit(output.write, rows, kept), 0))
                    # Bounds the memory of waiting results, and raises errors of the threads early.
                    while len(waiting) > IN_FLIGHT or _bytes(waiting) > IN_FLIGHT_BYTES:
                        waiting.popleft()[0].result()
                del results, found  # not beside those of the next batch
                if brought >= GIVE_BACK_BYTES:
                    brought = 0
                    give_back_freed()
                yield from (1 for _ in range(count))
            for future, _ in waiting:
                future.result()

    def _launched(self, items: Iterator[tuple[_Lined, Prepared]]) -> Iterator[_Launched]:
        """Each batch with its shard and its results, in order.

        On a CPU several batches are computed at the same time with one thread each, which is faster
        than one batch with all threads, and makes results independent of the number of cores.
        """
        if not self._side_by_side() or module_of(self.backbone) is None:
            for (work, count), item in items:
                yield work, count, _checked(item), work.launched_alone(item)
            return
        threads = torch.get_num_threads()
        lanes = min(MAX_LANES, max(1, threads // self.recipe.sharing))
        running: deque[tuple[_Lined, Prepared, Future[list[list[Result]] | None]]] = deque()
        # Also in this thread, which prepares inputs: its parallel loops would wait for busy cores.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (1,)) as pool:
                for lined, item in items:
                    launch = lined[0].one_pass(_checked(item)).launch_beside
                    running.append((lined, item, pool.submit(launch, item)))
                    if len(running) > lanes:
                        yield self._settled(running)
                while running:
                    yield self._settled(running)
        finally:
            torch.set_num_threads(threads)

    def _settled(
        self, running: deque[tuple[_Lined, Prepared, Future[list[list[Result]] | None]]]
    ) -> _Launched:
        """Results of the first batch under way, computed again alone if memory ran out."""
        (work, count), item, future = running.popleft()
        results = future.result()
        if results is None:
            wait([other for *_, other in running])
        if results is None or item.empty:
            results = work.launched_alone(item)
        return work, count, item, results

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
        held = self.store.held(planned.contents)
        pairs = {
            content: utterance
            for utterance, content in zip(planned.utterances, planned.contents, strict=True)
            if content not in held
        }
        if not pairs:
            return None
        return dataclasses.replace(planned, utterances=tuple(pairs.values()), contents=tuple(pairs))

    def _workers(self, seconds: float) -> int:
        if self.recipe.workers is not None:
            return self.recipe.workers
        return default_workers(self.backbone, self.device, seconds, self.recipe.sharing)

    def _line_up(
        self, shards: Iterable[PlannedShard], lined_up: deque[_Lined]
    ) -> Iterator[list[Utterance]]:
        """Batches of all shards, in order; consumed a little ahead of the device."""
        for planned in shards:
            work = self._work_on(planned)
            todo = work.rows[0].todo
            copied = len(planned.utterances) - len(todo)
            batches = self._batches(list(todo.values()))
            work.batches = len(batches) + 1
            # An empty batch first: it counts the copied rows, and completes a shard without others.
            for batch, count in [([], copied), *((batch, _finished(batch)) for batch in batches)]:
                if work.dropped:
                    break
                lined_up.append((work, count))
                yield batch

    def _work_on(self, planned: PlannedShard) -> _Work:
        """A shard for the entry, and for siblings that lack it and the same rows of it.

        Of other rows a sibling by itself would form other batches, and so get other last bits: its
        own extraction computes such a shard.
        """
        work = [(self.own, self.own.begin(planned))]
        for sibling in self.siblings:
            if not sibling.store.has(planned.fingerprint):
                rows = sibling.begin(planned)
                if rows.todo.keys() == work[0][1].todo.keys():
                    work.append((sibling, rows))
        return _Work([output for output, _ in work], [rows for _, rows in work])

    def _batches(self, utterances: list[Utterance]) -> list[list[Utterance]]:
        windowed = self.own.windowed
        if windowed is None:
            return list(form_batches(self.backbone, utterances, seconds=self.budget))
        long = [utterance for utterance in utterances if windowed.is_long(utterance)]
        short = [utterance for utterance in utterances if not windowed.is_long(utterance)]
        return [
            *form_batches(self.backbone, short, seconds=self.budget),
            *window_batches(windowed, long, seconds=self.budget),
        ]


def _begun(
    items: Iterator[Prepared], lined_up: deque[_Lined], begin: Callable[[PlannedShard], bool]
) -> Iterator[tuple[_Lined, Prepared]]:
    """Each batch that comes to the device, with its shard; none of shards that are dropped."""
    for item in items:
        work, count = lined_up.popleft()
        if item.empty:  # the first of a shard
            work.dropped = not begin(work.rows[0].planned)
        if not work.dropped:
            yield (work, count), item


def _bytes(waiting: Iterable[tuple[Future[None], int]]) -> int:
    return sum(size for _, size in waiting)


def _finished(batch: Sequence[Utterance]) -> int:
    """Number of utterances that are complete with a batch."""
    return sum(not isinstance(each, Window) or each.last for each in batch)


def _checked(item: Prepared) -> Prepared:
    if item.error is not None:
        raise item.error
    return item
