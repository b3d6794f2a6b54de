"""Distributes shards over this process, one process a device, or a Ray cluster.

The results are the same, since a shard's batches are formed inside of it, wherever that is.

Processes of one host take shards from one plan (`Shares`), the next one as soon as their loaders
have nothing left to prepare, so that these go on across the borders of shards. A shard that is
prepared and not begun may be taken over by a process that has nothing else to do. Ray is
an optional extra (`heronry[ray]`); the cluster is the one that `RAY_ADDRESS` names, or else one of
this host alone. Every host of it needs this project installed, the corpus under the same path, and
the weights where they are here.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import SynchronizedString
from pathlib import Path
from typing import Any, Literal, cast

from features.backbone.entry import BackboneEntry
from features.errors import HeronryError, ParamsError
from features.extraction.extractor import Extractor, Recipe
from features.extraction.output import Tally
from features.extraction.plan import PlannedShard, seconds_of
from features.extraction.store import WorkStore
from features.files.writing import replacing, seal
from features.process.machine_errors import with_machine_errors
from features.process.workers import WorkerPool

Engine = Literal["local", "ray"]
LOOK_SECONDS = 0.1  # between two looks at what the processes have done
TASKS_A_SLOT = 2  # queued for each core (or accelerator) of a cluster, so that none waits for work
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
        yield from extractor.run(shards, tally, seconds=seconds_of(shards))


class Shares:
    """Who works at which shard of a plan, in memory that the processes of an extraction share.

    The next free shard is held by the process that asks for it, whose loaders prepare its inputs
    some time before it comes to the device. Then it is begun, unless a process without other work
    has taken it over: no shard waits for a slow device while another one is idle.

    Args:
        shards: Number of shards.
    """

    _FREE, _HELD, _BEGUN = b"\0", b"\1", b"\2"

    def __init__(self, shards: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._states = cast(SynchronizedString, spawn.Array("c", shards))
        self._finished = spawn.Value("q", 0)

    @property
    def finished(self) -> int:
        """Utterances that are finished."""
        # Not locked: a process that was killed may have left the lock taken.
        return int(self._finished.get_obj().value)

    def finish_one(self) -> None:
        """Count an utterance as finished."""
        with self._finished.get_lock():
            self._finished.value += 1

    def hold(self) -> int | None:
        """The first free shard, held from now on; None if all are taken."""
        with self._states.get_lock():
            return self._change(self._states.raw.find(self._FREE), self._HELD)

    def take_over(self) -> int | None:
        """The last shard that is held and not begun, begun from now on; None if there is none."""
        with self._states.get_lock():
            return self._change(self._states.raw.rfind(self._HELD), self._BEGUN)

    def begin(self, index: int) -> bool:
        """Begin a shard that is held; False if another process has begun it."""
        with self._states.get_lock():
            free = self._states[index] != self._BEGUN
            self._change(index, self._BEGUN)
            return free

    def stop(self) -> None:
        """Have all processes end once they have finished what they have begun."""
        with self._states.get_lock():
            self._states.raw = self._BEGUN * len(self._states)

    def _change(self, index: int, state: bytes) -> int | None:
        if index < 0:
            return None
        self._states[index] = state
        return index


def _run_in_processes(
    extractor: Extractor, shards: Sequence[PlannedShard], devices: Sequence[str], tally: Tally
) -> Iterator[int]:
    devices = devices[: len(shards)]
    names: Queue[str] = multiprocessing.get_context("spawn").Queue()
    for device in devices:
        names.put(device)
    siblings = [output.entry for output in extractor.siblings]
    recipe = dataclasses.replace(extractor.recipe, sharing=len(devices))
    shares, shown = Shares(len(shards)), 0
    share = _Share(recipe, siblings, names, extractor.store.reserved, shards, shares)
    with WorkerPool(len(devices), _start, (share,)) as pool:
        running = {pool.submit(_finish_shards) for _ in devices}
        while running:
            done, running = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
            before, shown = shown, shares.finished
            yield from (1 for _ in range(shown - before))
            for future in done:
                tally.add(future.result())


@dataclass
class _Share:
    """The part of a process in an extraction on several devices.

    Attributes:
        recipe: Arguments of its extractor.
        siblings: Entries to take along.
        devices: Devices that no process has yet.
        reserved: Shards that no rows are copied from.
        shards: All shards.
        shares: Who works at which of them.
    """

    recipe: Recipe
    siblings: Sequence[BackboneEntry]
    devices: Queue[str]
    reserved: frozenset[str]
    shards: Sequence[PlannedShard]
    shares: Shares
    _places: dict[int, int] = field(default_factory=dict)  # of shards that are held, by number

    @functools.cached_property
    def extractor(self) -> Extractor:
        """Extractor on the device of this process, which loads weights once."""
        extractor = Extractor(self.recipe, self.devices.get())
        extractor.take_along(self.siblings)
        extractor.reserve(self.reserved)
        return extractor

    def finish(self) -> Tally:
        """Finish shards until each is begun by some process; counts of its own."""
        tally = Tally()
        try:
            first = self.shares.hold()
            if first is not None:  # loaders start for it
                seconds = seconds_of(self.shards) / self.recipe.sharing
                self._count(
                    self.extractor.run(self._held(first), tally, seconds=seconds, begin=self._begin)
                )
            while (index := self.shares.take_over()) is not None:
                shard = self.shards[index]
                self._count(self.extractor.run([shard], tally, seconds=seconds_of([shard])))
        except BaseException:
            self.shares.stop()
            raise
        return tally

    def _count(self, steps: Iterable[int]) -> None:
        for _ in steps:
            self.shares.finish_one()

    def _held(self, index: int | None) -> Iterator[PlannedShard]:
        while index is not None:
            shard = self.shards[index]
            self._places[shard.number] = index
            yield shard
            index = self.shares.hold()

    def _begin(self, shard: PlannedShard) -> bool:
        return self.shares.begin(self._places.pop(shard.number))


# Of a worker process.
_share: _Share | None = None
_ray_extractor: tuple[Recipe, Extractor] | None = None


def _start(share: _Share) -> None:
    # No more: errors of a process that starts would be tracebacks.
    global _share
    _share = share


def _finish_shards() -> Tally:
    assert _share is not None
    return _share.finish()


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
                yield from extractor.run([shard], tally, seconds=None)
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
        yield from extractor.run([shard], Tally(), seconds=None)


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
        for _ in extractor.run([shard], tally, seconds=seconds_of([shard])):
            pass
        return extractor.store.path(shard.fingerprint).read_bytes(), tally


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ParamsError(
            "--engine ray, but Ray is not installed; run `python -m pip install -e '.[ray]'`, "
            "or leave the option out to extract on this host"
        ) from error
    return ray
