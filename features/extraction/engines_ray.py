"""Extraction over the hosts of a Ray cluster: the same shards, wherever they are computed.

Each task gets the missing utterances of a shard and gives back a sealed shard of them, which the
driver takes into its own work store. Every host needs this project installed and the corpus under
the same path; weights are looked up there as here. Ray is an optional extra (`heronry[ray]`); the
cluster is the one that `RAY_ADDRESS` names, or else one of this host alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from features.errors import HeronryError, ParamsError
from features.extraction.extractor import Extractor, Recipe, Tally
from features.extraction.plan import PlannedShard
from features.extraction.store import WorkStore
from features.files.writing import replacing, seal
from features.process.machine_errors import with_machine_errors

RETRIES = 3  # of a task whose worker or host died
TASKS_A_SLOT = 2  # handed out for each core (or accelerator), so that none waits for work


def run_on_ray(extractor: Extractor, shards: Sequence[PlannedShard], tell: Tally) -> Iterator[int]:
    """Finish shards in the extractor's store, yielding once per utterance.

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
                yield from extractor.run([shard], tell)
            else:
                running[compute.remote(extractor.recipe, device, missing)] = (shard, missing)
        if not running:
            return
        (done,), _ = ray.wait(list(running))
        shard, part = running.pop(done)
        content, tally = _result(ray, done)
        tell.add(tally)
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
    """Store what a host computed, and finish the shard with what was there already."""
    with replacing(extractor.store.path(part.fingerprint)) as temporary:
        temporary.write_bytes(content)
        seal(temporary)
    extractor.store.add(part.fingerprint, device="ray")
    if part.fingerprint == shard.fingerprint:
        yield from (1 for _ in shard.utterances)
    else:
        yield from extractor.run([shard], Tally())


_kept: tuple[Recipe, Extractor] | None = None  # of a worker process: weights are loaded once


def _compute(recipe: Recipe, device: str, shard: PlannedShard) -> tuple[bytes, Tally]:
    """Compute a shard on this host: its bytes, and what was done."""
    return with_machine_errors(_computed, recipe, device, shard)


def _computed(recipe: Recipe, device: str, shard: PlannedShard) -> tuple[bytes, Tally]:
    global _kept
    with tempfile.TemporaryDirectory(prefix="heronry-") as folder:
        if _kept is None or _kept[0] != recipe:
            _kept = (recipe, Extractor(recipe, device))
        extractor = _kept[1]
        extractor.store = WorkStore(Path(folder), extractor.store.folder.name)
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
