"""Where shards are computed: in this process, in one process a device, or on a Ray cluster.

The results are the same: a shard's batches are formed inside of it, wherever that is.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from multiprocessing.queues import Queue
from typing import Literal

from features.extraction.extractor import Extractor, Recipe, Tally
from features.extraction.plan import PlannedShard
from features.process.workers import WorkerPool

Engine = Literal["local", "ray"]
SHARDS_A_DEVICE = 2  # handed out to each, so that none waits for work


def run_shards(
    extractor: Extractor,
    shards: Sequence[PlannedShard],
    devices: Sequence[str],
    engine: Engine,
    tell: Tally,
) -> Iterator[int]:
    """Finish shards in the extractor's store, yielding once per utterance.

    Args:
        extractor: Of the first device.
        shards: Those to be computed.
        devices: More than one: a process each, which take shards as they become free.
        engine: `ray` maps the shards over a cluster instead.
        tell: Summed up.
    """
    if engine == "ray":
        # Imported by name, since Ray's module is of no use to anybody who has no Ray.
        yield from importlib.import_module("features.extraction.engines_ray").run_on_ray(
            extractor, shards, tell
        )
    elif len(devices) > 1 and len(shards) > 1:
        yield from _run_in_processes(extractor, shards, devices, tell)
    else:
        yield from extractor.run(shards, tell)


def _run_in_processes(
    extractor: Extractor, shards: Sequence[PlannedShard], devices: Sequence[str], tell: Tally
) -> Iterator[int]:
    names: Queue[str] = multiprocessing.get_context("spawn").Queue()
    for device in devices:
        names.put(device)
    given = (extractor.recipe, names, extractor.store.reserved)
    left = iter(shards)
    running: dict[Future[Tally], int] = {}  # with the number of utterances
    with WorkerPool(len(devices), _start, given) as pool:
        while True:
            for shard in itertools.islice(left, len(devices) * SHARDS_A_DEVICE - len(running)):
                running[pool.submit(_finish, shard)] = len(shard.utterances)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                count = running.pop(future)
                tell.add(future.result())
                yield from (1 for _ in range(count))


_extractor: Extractor | None = None  # of a pool's process


def _start(recipe: Recipe, devices: Queue[str], reserved: frozenset[str]) -> None:
    global _extractor
    _extractor = Extractor(recipe, devices.get())
    _extractor.store.reserve(reserved)


def _finish(shard: PlannedShard) -> Tally:
    assert _extractor is not None
    tally = Tally()
    for _ in _extractor.run([shard], tally):
        pass
    return tally
