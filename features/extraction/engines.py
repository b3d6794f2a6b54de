"""Distributes shards over this process, one process a device, or a Ray cluster.

The results are the same, since a shard's batches are formed inside of it, wherever that is. Ray is
an optional extra (`heronry[ray]`); the cluster is the one that `RAY_ADDRESS` names, or else one of
this host alone. Every host of it needs this project installed, the corpus under the same path, and
the weights where they are here.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Literal

from features.backbone.entry import BackboneEntry
from features.errors import HeronryError, ParamsError
from features.extraction.extractor import Extractor, Recipe
from features.extraction.output import Tally
from features.extraction.plan import PlannedShard
from features.extraction.store import WorkStore
from features.files.writing import replacing, seal
from features.process.machine_errors import with_machine_errors
from features.process.workers import WorkerPool

Engine = Literal["local", "ray"]
SHARDS_A_DEVICE = 2  # queued for each device, so that none waits for work
TASKS_A_SLOT = 2  # queued for each core (or accelerator) of a cluster, for the same reason
RETRIES = 3  # of a Ray task whose worker or host died


def run_shards(
    extractor: Extractor,
    shards: Sequence[PlannedShard],
    devices: Sequence[str],
    engine: Engine,
    tally: Tally,
) -> Iterator[int]:
    """Finish shards in the extractor's store, yielding once per utterance.

    Args:
        extractor: Extractor on the first device.
        shards: Shards to compute.
        devices: Several devices get a process each, which take shards as they become free.
        engine: `ray` distributes the shards over a cluster instead.
        tally: Counts, added to.
    """
    if engine == "ray":
        yield from _run_on_ray(extractor, shards, tally)
    elif len(devices) > 1 and len(shards) > 1:
        yield from _run_in_processes(extractor, shards, devices, tally)
    else:
        yield from extractor.run(shards, tally)


def _run_in_processes(
    extractor: Extractor, shards: Sequence[PlannedShard], devices: Sequence[str], tally: Tally
) -> Iterator[int]:
    names: Queue[str] = multiprocessing.get_context("spawn").Queue()
    for device in devices:
        names.put(device)
    siblings = [output.entry for output in extractor.siblings]
    given = (extractor.recipe, siblings, names, extractor.store.reserved)
    left = iter(shards)
    running: dict[Future[Tally], int] = {}  # number of utterances by future
    with WorkerPool(len(devices), _start, given) as pool:
        while True:
            for shard in itertools.islice(left, len(devices) * SHARDS_A_DEVICE - len(running)):
                running[pool.submit(_finish, shard)] = len(shard.utterances)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                count = running.pop(future)
                tally.add(future.result())
                yield from (1 for _ in range(count))


# Of a worker process, which loads weights once.
_extractor: Extractor | None = None
_ray_extractor: tuple[Recipe, Extractor] | None = None


def _start(
    recipe: Recipe,
    siblings: Sequence[BackboneEntry],
    devices: Queue[str],
    reserved: frozenset[str],
) -> None:
    global _extractor
    _extractor = Extractor(recipe, devices.get())
    _extractor.take_along(siblings)
    _extractor.reserve(reserved)


def _finish(shard: PlannedShard) -> Tally:
    assert _extractor is not None
    tally = Tally()
    for _ in _extractor.run([shard], tally):
        pass
    return tally


def _run_on_ray(
    extractor: Extractor, shards: Sequence[PlannedShard], tally: Tally
) -> Iterator[int]:
    """Compute the missing utterances of each shard as a Ray task, which returns a sealed shard.

    Raises:
        ParamsError: If Ray is not installed.
        HeronryError: What a task raised, such as a missing file.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    cuda = extractor.device.type == "cuda"
    compute = ray.remote(num_cpus=1, num_gpus=int(cuda), max_retries=RETRIES)(_compute)
    slots = int(ray.cluster_resources().get("GPU" if cuda else "CPU", 1))
    device = "cuda" if cuda else "cpu"
    left, room = iter(shards), max(1, slots) * TASKS_A_SLOT
    running: dict[Any, tuple[PlannedShard, PlannedShard]] = {}
    while True:
        while len(running) < room and (shard := next(left, None)) is not None:
            missing = extractor.missing(shard)
            if missing is None:
                yield from extractor.run([shard], tally, copied=True)
            else:
                running[compute.remote(extractor.recipe, device, missing)] = (shard, missing)
        if not running:
            return
        (done,), _ = ray.wait(list(running))
        shard, part = running.pop(done)
        content, counts = _result(ray, done)
        tally.add(counts)
        yield from _take_in(extractor, shard, part, content)


def _result(ray: Any, reference: Any) -> tuple[bytes, Tally]:
    try:
        result: tuple[bytes, Tally] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HeronryError):
            raise error.cause from error
        raise
    return result


def _take_in(
    extractor: Extractor, shard: PlannedShard, part: PlannedShard, content: bytes
) -> Iterator[int]:
    """Store the part of a shard that a host computed, and finish the shard with the rest."""
    with replacing(extractor.store.path(part.fingerprint)) as temporary:
        temporary.write_bytes(content)
        seal(temporary)
    extractor.store.add(part.fingerprint, device="ray")
    if part.fingerprint == shard.fingerprint:
        yield from (1 for _ in shard.utterances)
    else:
        yield from extractor.run([shard], Tally(), copied=True)


def _compute(recipe: Recipe, device: str, shard: PlannedShard) -> tuple[bytes, Tally]:
    """Compute a shard on this host, and return its bytes and counts."""
    return with_machine_errors(_computed, recipe, device, shard)


def _computed(recipe: Recipe, device: str, shard: PlannedShard) -> tuple[bytes, Tally]:
    global _ray_extractor
    with tempfile.TemporaryDirectory(prefix="heronry-") as folder:
        if _ray_extractor is None or _ray_extractor[0] != recipe:
            _ray_extractor = (recipe, Extractor(recipe, device))
        extractor = _ray_extractor[1]
        extractor.own.store = WorkStore(Path(folder), extractor.store.folder.name)
        tally = Tally()
        for _ in extractor.run([shard], tally):
            pass
        return extractor.store.path(shard.fingerprint).read_bytes(), tally


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ParamsError(
            "--engine ray, but Ray is not installed; run `python -m pip install 'heronry[ray]'`, "
            "or leave the option out to extract on this host"
        ) from error
    return ray
