"""The extraction engine: a manifest and a backbone to sealed shards.

Inputs are prepared ahead of the device by worker processes (features/extraction/batches.py), a
thread behind the device rounds and writes (features/extraction/extractor.py), and finished shards
lie in the work store, from where they are linked into the output folder. Several devices or hosts
share the shards out (features/extraction/engines.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.backbone.base import lacks, notices
from features.backbone.entry import BackboneEntry
from features.cache.reader import no_features
from features.cache.shard import read_shard, shard_name
from features.corpus.manifest import Manifest
from features.errors import CacheError
from features.extraction.engines import Engine, run_shards
from features.extraction.extractor import Extractor, Recipe, Tally
from features.extraction.forecast import Forecast, forecast
from features.extraction.pins import check_pinned
from features.extraction.plan import ShardPlan, lacking
from features.extraction.seen import find_seen, trained_on
from features.extraction.store import WorkStore
from features.files.reasons import NOTICED, REJECTED, SEEN, write_reasons
from features.files.writing import empty_folder
from features.process.terminal import progress


@dataclass
class Extraction(Tally):
    """What an extraction did.

    Attributes:
        linked: Shards that were there already.
        utterances: Of the corpus.
        rejected: Reasons by id.
        noticed: Notices by id: what of an utterance the features leave out.
        seen: Why utterances count as seen in the checkpoint's training, by id; None: unknown.
    """

    linked: int = 0
    utterances: int = 0
    rejected: dict[str, str] = field(default_factory=dict)
    noticed: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] | None = None


@dataclass(frozen=True)
class Options:
    """How to extract. None of it changes a number beyond float rounding.

    Attributes:
        devices: Where networks run; several share the shards out.
        batch_seconds: Budget of a batch; None: on a CPU the backbone's own (mostly one utterance),
            480 s elsewhere.
        workers: Processes that prepare inputs for each device; None: as many as pay off.
        engine: `local`, or `ray` for the hosts of a cluster.
        announce: Told what is to be done, before it is.
        part: `(k, n)`: finish the k-th of n parts of the shards (from 0) in the work store, beside
            other processes or hosts that do the other parts; what is put into `out` by whoever
            extracts all of it afterwards. None: all.
    """

    devices: tuple[str, ...] = ("cpu",)
    batch_seconds: float | None = None
    workers: int | None = None
    engine: Engine = "local"
    announce: Callable[[Forecast], Any] | None = None
    part: tuple[int, int] | None = None


def extract(
    manifest: Manifest,
    entry: BackboneEntry,
    out: Path,
    *,
    store: Path,
    options: Options | None = None,
) -> Extraction:
    """Fill `out` with the shards of a corpus under a backbone, reusing what the store holds.

    Args:
        manifest: Utterances with absolute audio paths (`Manifest.located`).
        entry: The backbone.
        out: `cache/<corpus>/<backbone>`; replaced, but for a part of the shards.
        store: Root of the work store.
        options: Devices, batch size, processes.

    Raises:
        HeronryError: If nothing can be trusted: a missing file, one that changed since `prepare`, a
            missing checkpoint, a full disk; or if no utterance can be used. Finished shards stay in
            the store, and nothing in `out`.
    """
    options = options or Options()
    if options.part is None:
        empty_folder(out)
    if entry.kind == "none":
        if options.part is None:  # not quite an empty folder: DVC warns of those at every turn
            write_reasons(out / REJECTED, {})
        return Extraction()
    recipe = Recipe(entry, store, options.batch_seconds, options.workers)
    try:
        return extract_with(Extractor(recipe, options.devices[0]), manifest, out, options)
    except BaseException:
        if options.part is None:  # DVC leaves the outputs of a stage that failed where they are
            shutil.rmtree(out, ignore_errors=True)
        raise


def extract_with(
    extractor: Extractor, manifest: Manifest, out: Path, options: Options
) -> Extraction:
    """`extract` with a backbone that is loaded already, into the empty folder `out`."""
    check_pinned(extractor.entry, extractor.provenance)
    known = trained_on(extractor.entry)  # first, since hours would be in vain if it is malformed
    plan = ShardPlan.of(manifest, extractor.backbone.reads)
    with extractor.store.locked(shared=options.part is not None):
        tell = _compute(extractor, plan, options)
        if options.part is not None:
            return tell
        deliver(extractor.store, plan, out, tell)
    told = notices(extractor.backbone, manifest)  # of all, copied and linked features too
    tell.noticed = {id: notice for id, notice in told if id not in tell.rejected}
    write_reasons(out / NOTICED, tell.noticed)
    if known is not None:
        tell.seen = find_seen(manifest, known)
        write_reasons(out / SEEN, tell.seen)
    return tell


def _compute(extractor: Extractor, plan: ShardPlan, options: Options) -> Extraction:
    tell, store, entry = Extraction(), extractor.store, extractor.entry
    if extractor.budget:  # batches: see `reserve`
        store.reserve(cut.fingerprint for cut in plan.cuts)
    if options.part is not None:
        plan = plan[options.part[0] :: options.part[1]]
    todo = plan.only(lambda cut: not store.has(cut.fingerprint))
    tell.linked = len(plan) - len(todo)
    if options.announce is not None:
        options.announce(forecast(plan, store, entry, extractor.backbone))
    steps = run_shards(extractor, todo, options.devices, options.engine, tell)
    total = sum(cut.utterances for cut in todo.cuts)
    for _ in progress(steps, total=total, what=f"extract {entry.name}", unit="utterance"):
        pass
    return tell


def deliver(store: WorkStore, plan: ShardPlan, out: Path, tell: Extraction) -> None:
    """Put all finished shards of a plan into `out`, and list what was rejected in `tell`.

    Raises:
        CacheError: If that is every utterance: such a cache must not pass for a finished one.
    """
    rejected: dict[str, str] = {}
    for cut in plan.cuts:
        rejected |= read_shard(store.path(cut.fingerprint)).rejected
        store.deliver(cut.fingerprint, out / shard_name(cut.number))
    for utterance in plan.manifest:  # in its order
        tell.utterances += 1
        if lacks(utterance, plan.reads):
            tell.rejected[utterance.id] = lacking(plan.reads)
        elif utterance.id in rejected:
            tell.rejected[utterance.id] = rejected[utterance.id]
    useless = tell.rejected and len(tell.rejected) == tell.utterances
    if useless and (plan.cuts or plan.reads != "asr"):  # recognised words are never a must
        raise CacheError(f"{out}: {no_features(tell.rejected)}")
    write_reasons(out / REJECTED, tell.rejected)
