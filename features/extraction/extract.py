"""Extracts the features of a corpus under a backbone into a cache folder: the entry point.

Worker processes prepare inputs ahead of the device (features/extraction/batches.py), a thread
behind the device rounds and writes (features/extraction/extractor.py), and finished shards are kept
in the work store (features/extraction/store.py), from which they are linked into the output folder.
Several devices or hosts divide the shards among them (features/extraction/engines.py).
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.backbone.base import lacks, notices
from features.backbone.entry import PACKAGE, BackboneEntry, check_pinned, recorded_by
from features.backbone.memory import Known, Memory
from features.cache.members import write_members
from features.cache.reader import CacheReader, no_features
from features.cache.shard import Shard, read_shard, settings_of, shard_name
from features.corpus.manifest import Manifest
from features.errors import CacheError
from features.extraction.engines import Engine, run_shards
from features.extraction.extractor import ELSEWHERE, Extractor, Recipe
from features.extraction.forecast import Forecast, forecast
from features.extraction.output import Tally
from features.extraction.plan import Cut, ShardPlan, lacking
from features.extraction.sizes import Sizes
from features.extraction.store import WorkStore
from features.extraction.trained_on import seen_by
from features.files.reasons import NOTICED, REJECTED, SEEN, write_reasons
from features.files.writing import empty_folder
from features.process.terminal import progress, size
from features.settings.plugins import load


@dataclass
class Extraction(Tally):
    """Counts and per-utterance results of an extraction.

    Attributes:
        linked: Shards that the store had already.
        utterances: Utterances of the corpus.
        rejected: Reasons by id.
        noticed: Notices by id: what of an utterance the features leave out.
        seen: Reasons by id why utterances count as seen in the checkpoint's training, if known.
    """

    linked: int = 0
    utterances: int = 0
    rejected: dict[str, str] = field(default_factory=dict)
    noticed: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] | None = None


@dataclass(frozen=True)
class Options:
    """Settings of an extraction that change no number beyond float rounding.

    Attributes:
        devices: Devices that networks run on; several divide the shards among them.
        batch_seconds: Padded seconds of a batch; None: on a CPU the backbone's own (mostly one
            utterance), 480 s elsewhere.
        workers: Processes that prepare inputs for each device; None: as many as pay off.
        engine: `local`, or `ray` for the hosts of a cluster.
        announce: Called with the forecast before anything is computed.
        siblings: Other entries of the same network, whose shards are finished in the same pass
            where they lack the same (`features.backbone.siblings`); with Ray none are.
        note: Called with a line for each of them, before anything is computed.
        part: `(k, n)`: only finish the k-th of n parts of the shards (from 0) in the work store,
            while other processes or hosts do the other parts; a later extraction without `part`
            fills `out`. None: everything.
    """

    devices: tuple[str, ...] = ("cpu",)
    batch_seconds: float | None = None
    workers: int | None = None
    engine: Engine = "local"
    announce: Callable[[Forecast], Any] | None = None
    siblings: tuple[BackboneEntry, ...] = ()
    note: Callable[[str], Any] | None = None
    part: tuple[int, int] | None = None


def extract(
    manifest: Manifest,
    entry: BackboneEntry,
    out: Path,
    *,
    store: Path,
    options: Options | None = None,
) -> Extraction:
    """Fill `out` with the shards of a corpus under a backbone, reusing those of the store.

    Args:
        manifest: Utterances with absolute audio paths (`Manifest.located`).
        entry: Backbone entry of params.yaml.
        out: `cache/<corpus>/<backbone>`; replaced, unless only a part is extracted.
        store: Root of the work store.
        options: Devices, batch size, processes.

    Raises:
        HeronryError: If a file is missing or changed since `prepare`, a checkpoint is missing, the
            disk is full, or no utterance can be used. Finished shards stay in the store, and `out`
            is removed.
    """
    options = options or Options()
    if options.part is None:
        empty_folder(out)
    if entry.kind == "none":
        if options.part is None:  # DVC would warn about an empty folder each time
            write_reasons(out / REJECTED, {})
        return Extraction()
    try:
        memory = Memory(entry, store)
        known = memory.recall()
        done = None if known is None else _link(known, memory, manifest, out, store, options)
        if done is None:
            recipe = Recipe(entry, store, options.batch_seconds, options.workers)
            extractor = Extractor(recipe, options.devices[0])
            memory.keep(extractor.backbone, extractor.provenance)
            done = extract_with(extractor, manifest, out, options)
        return done
    except BaseException:
        if options.part is None:  # DVC does not remove outputs of a failed stage
            shutil.rmtree(out, ignore_errors=True)
        raise


def extract_with(
    extractor: Extractor, manifest: Manifest, out: Path, options: Options
) -> Extraction:
    """As `extract`, with a backbone that is already loaded, into the empty folder `out`."""
    # Of a cache of others, which records the network that it was made by, the shards themselves.
    imported = recorded_by(extractor.backbone) is not None
    pinned_by = extractor.backbone.provenance() if imported else extractor.provenance
    check_pinned(extractor.entry, pinned_by)
    # Before anything is computed: a malformed file should not cost hours.
    seen = seen_by(extractor.entry, manifest)
    plan = ShardPlan.of(manifest, extractor.backbone.reads, extractor.own.sizes)
    with extractor.store.locked(shared=options.part is not None):
        _adopt(extractor.store, extractor.provenance, plan, out)
        if imported:
            _take_theirs(extractor, plan)
        done = _compute(extractor, plan, options)
        if options.part is not None:
            return done
        deliver(extractor.store, plan, out, done)
    # Also of copied and linked features.
    noticed = dict(notices(extractor.backbone, manifest))
    for each in extractor.outputs:  # siblings read the same words
        Memory(each.entry, extractor.recipe.store).keep_notices(plan.identity, noticed)
    return _listed(done, out, noticed, seen)


def _link(
    known: Known,
    memory: Memory,
    manifest: Manifest,
    out: Path,
    root: Path,
    options: Options,
) -> Extraction | None:
    """As `extract_with`, without a network; None if anything is to be computed."""
    store = WorkStore(root, known.key)
    sizes = Sizes.of_known(known)
    plan = ShardPlan.of(manifest, known.reads, sizes)
    noticed = memory.notices(plan.identity) if known.notices else {}
    if noticed is None:
        return None
    with store.locked(shared=options.part is not None):
        _adopt(store, known.provenance, plan, out)
        wanted = _wanted(plan, options)
        # First whether they are there, as reading them takes longer.
        there = all(store.path(cut.fingerprint).exists() for cut in wanted.cuts)
        if not there or not all(store.has(cut.fingerprint) for cut in wanted.cuts):
            return None
        check_pinned(memory.entry, known.provenance)
        seen = seen_by(memory.entry, manifest)
        if options.announce is not None:
            options.announce(forecast(wanted, store, sizes))
        done = Extraction(linked=len(wanted))
        if options.part is not None:
            return done
        deliver(store, plan, out, done)
    return _listed(done, out, noticed, seen)


def _listed(
    done: Extraction, out: Path, noticed: Mapping[str, str], seen: dict[str, str] | None
) -> Extraction:
    """Write the lists of noticed and seen utterances, and add them to `done`."""
    done.noticed = {id: notice for id, notice in noticed.items() if id not in done.rejected}
    write_reasons(out / NOTICED, done.noticed)
    if seen is not None:
        done.seen = seen
        write_reasons(out / SEEN, done.seen)
    return done


def _wanted(plan: ShardPlan, options: Options) -> ShardPlan:
    """The part of the shards that is asked for."""
    if options.part is None:
        return plan
    wanted: ShardPlan = plan[options.part[0] :: options.part[1]]
    return wanted


def _adopt(store: WorkStore, provenance: Mapping[str, Any], plan: ShardPlan, out: Path) -> None:
    """Give the store the shards of a union that only its members' caches have, as after a pull.

    From those that close elsewhere than the plan's, as older releases cut them, rows are copied.
    """
    if not plan.manifest.members:
        return
    cuts: dict[str, list[Cut]] = {}
    for cut in plan.cuts:
        cuts.setdefault(cut.prefix, []).append(cut)
    for prefix, own in cuts.items():
        folder = out.parent.parent / prefix.rstrip("/") / out.name
        for number in itertools.count():
            source = folder / shard_name(number)
            if not source.is_file():
                break
            planned = own[number] if number < len(own) else None
            if planned is not None and store.path(planned.fingerprint).exists():
                continue
            shard = read_shard(source)
            if settings_of(shard.provenance) != provenance:
                continue
            name = _name_of(shard, plan, planned)
            if not store.path(name).exists():
                shard.verify()
                store.take(name, source)


def _name_of(shard: Shard, plan: ShardPlan, planned: Cut | None) -> str:
    """Name in the store of a shard made elsewhere: that of a planned one, if it is the same."""
    same = planned is not None and plan[planned.number].is_held_by(shard)
    return planned.fingerprint if planned is not None and same else shard.checksum


def _take_theirs(extractor: Extractor, plan: ShardPlan) -> None:
    """Give the store the shards of a cache of another project, from which it copies rows.

    A shard of the same utterances is that of the plan: nothing of it is copied where links can be.
    """
    store, entry = extractor.store, extractor.entry
    theirs: CacheReader = load(PACKAGE, entry.kind).cache_of(entry.options)
    for number, shard in enumerate(theirs.shards):
        name = _name_of(shard, plan, plan.cuts[number] if number < len(plan) else None)
        if not store.has(name):  # nor a damaged one, which was a link to what is brought again
            store.take(name, shard.path)


def _compute(extractor: Extractor, plan: ShardPlan, options: Options) -> Extraction:
    done, store, entry = Extraction(), extractor.store, extractor.entry
    # Of batches of several utterances: see `WorkStore.reserve`.
    reserved = {cut.fingerprint for cut in plan.cuts} if extractor.budget else set()
    store.reserve(reserved)
    plan = _wanted(plan, options)
    todo = plan.only(lambda cut: not store.has(cut.fingerprint))
    done.linked = len(plan) - len(todo)
    if options.announce is not None:
        options.announce(forecast(plan, store, extractor.own.sizes))
    with contextlib.ExitStack() as locks:
        if todo.cuts:
            _take_along(extractor, todo, options, locks)
            for sibling in extractor.siblings:
                sibling.store.reserve(reserved)
        steps = run_shards(extractor, todo, options.devices, options.engine, done)
        total = sum(cut.utterances for cut in todo.cuts)
        for _ in progress(steps, total=total, what=f"extract {entry.name}", unit="utterance"):
            pass
    return done


def _take_along(
    extractor: Extractor, todo: ShardPlan, options: Options, locks: contextlib.ExitStack
) -> None:
    """Add the siblings that lack some of these shards and that nobody else extracts now."""
    # Before they are loaded, as `keep` compares.
    memories = [(entry, Memory(entry, extractor.recipe.store)) for entry in options.siblings]
    if options.engine == "local":
        left_out = {entry.name: ELSEWHERE for entry, memory in memories if _elsewhere(memory, todo)}
        rest = [entry for entry in options.siblings if entry.name not in left_out]
        left_out |= extractor.take_along(rest, todo)
    else:  # whose hosts send the shards of one entry back
        left_out = {entry.name: "Ray computes entries one by one" for entry in options.siblings}
    lines = []
    for sibling in tuple(extractor.siblings):
        # By the entry itself: outside of params.yaml, names may repeat.
        memory = next(memory for entry, memory in memories if entry == sibling.entry)
        memory.keep(sibling.backbone, sibling.provenance)
        name, size_of = sibling.entry.name, sibling.bytes_of(todo.lacking(sibling.store).cuts)
        if size_of:
            shared = options.part is not None
            if locks.enter_context(sibling.store.locked(shared=shared, wait=False)):
                lines.append(f"in the same pass: {name}, about {size(size_of)}")
                continue
            left_out[name] = "another process extracts it"
        extractor.siblings.remove(sibling)
    lines += [f"not in the same pass: {name}: {reason}" for name, reason in left_out.items()]
    if options.note is not None:
        for line in lines:
            options.note(line)


def _elsewhere(memory: Memory, todo: ShardPlan) -> bool:
    """Whether a sibling's shards are known to close elsewhere, without loading its network."""
    known = memory.recall()
    return known is not None and not todo.fits(Sizes.of_known(known))


def deliver(store: WorkStore, plan: ShardPlan, out: Path, done: Extraction) -> None:
    """Link the finished shards of a plan into `out`, and add the rejected utterances to `done`.

    Raises:
        CacheError: If every utterance was rejected, since such a cache is not a finished one.
    """
    rejected: dict[str, str] = {}
    for cut in plan.cuts:
        found = read_shard(store.path(cut.fingerprint)).rejected
        rejected |= {cut.prefix + id: reason for id, reason in found.items()}
        store.deliver(cut.fingerprint, out / shard_name(cut.number))
    for utterance in plan.manifest:  # in its order
        done.utterances += 1
        if lacks(utterance, plan.reads):
            done.rejected[utterance.id] = lacking(plan.reads)
        elif utterance.id in rejected:
            done.rejected[utterance.id] = rejected[utterance.id]
    useless = done.rejected and len(done.rejected) == done.utterances
    if useless and (plan.cuts or plan.reads != "asr"):  # recognised words are optional
        raise CacheError(f"{out}: {no_features(done.rejected)}")
    write_reasons(out / REJECTED, done.rejected)
    if plan.manifest.members:
        shards = Counter(cut.prefix for cut in plan.cuts)
        members = [(member.name, shards[member.prefix]) for member in plan.manifest.members]
        write_members(out, members)
