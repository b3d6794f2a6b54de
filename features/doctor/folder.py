"""Lists every fault of a cache folder, where `CacheReader` stops at the first.

`check_cache` compares a folder with its format (docs/format.md), `check_against` with the manifest
that it should have been made from. One shard is open at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.arguments import counted
from features.backbone.base import Reads, content_of
from features.backbone.entry import PACKAGE
from features.cache.members import MEMBERS, prefixes
from features.cache.reader import no_features
from features.cache.shard import shard_name
from features.corpus.manifest import Manifest
from features.doctor.shards import (
    NAME,
    Fault,
    ShardFacts,
    check_shard,
    shard_number,
    unopenable,
)
from features.errors import HeronryError, ParamsError
from features.extraction.plan import PlannedShard, lacking, plan_shards
from features.files.reasons import NOTICED, REJECTED, SEEN, read_reasons
from features.process.terminal import progress
from features.settings.plugins import load

# How much the number of frames may differ from `seconds / hop_seconds`:
SLACK_FRAMES = 2  # backbones treat the ends of an utterance differently,
SLACK_PART = 0.02  # and windows may overlap or not divide its length


@dataclass
class CacheFacts:
    """Contents and faults of a cache folder.

    Attributes:
        folder: `cache/<corpus>/<backbone>`.
        shards: Sound shards, in order.
        unusable: Numbers of the shards that are damaged or missing.
        rejected: Reasons by id, from rejected.csv; None where that cannot be read.
        faults: All faults.
    """

    folder: Path
    shards: list[ShardFacts] = field(default_factory=list)
    unusable: set[int] = field(default_factory=set)
    rejected: dict[str, str] | None = None
    faults: list[Fault] = field(default_factory=list)


def check_cache(folder: Path) -> CacheFacts:
    """Read everything in a cache folder and list its deviations from the format."""
    found = CacheFacts(folder)
    files = sorted(folder.iterdir())
    crashing = unopenable([path for path in files if NAME.fullmatch(path.name)])
    for path in progress(files, total=len(files), what=f"read {folder}", unit="file"):
        if NAME.fullmatch(path.name):
            crash = Fault(path, "is damaged: HDF5 crashes or hangs on it", "quarantine")
            shard = [crash] if path in crashing else check_shard(path)
            if isinstance(shard, ShardFacts):
                found.shards.append(shard)
            else:
                found.faults += shard
                found.unusable.add(shard_number(path))
        elif path.name not in (REJECTED, NOTICED, SEEN, MEMBERS):
            found.faults.append(Fault(path, "does not belong into a cache", "move"))
    found.shards.sort(key=lambda shard: shard.number)
    _name(found)
    _check_rejected(found)
    _check_sequence(found)
    _check_ids(found)
    _check_any(found)
    return found


def check_against(cache: CacheFacts, manifest: Manifest) -> Iterator[Fault]:
    """Compare a cache with the manifest: ids, contents, how shards are cut, numbers of frames.

    Utterances of damaged or missing shards are not reported a second time.
    """
    reads = reads_of(cache, manifest)
    plan = list(plan_shards(manifest, reads))
    unusable = {p.prefix + u.id for p in plan if p.number in cache.unusable for u in p.utterances}
    held = {id for shard in cache.shards for id in shard.ids}
    known = {utterance.id: utterance for utterance in manifest}
    where = cache.folder
    missing = [id for id in known if id not in held | unusable | set(cache.rejected or ())]
    if missing and cache.rejected is not None:
        yield Fault(where, f"lacks utterances of the manifest: {counted(missing)}")
    extra = [id for shard in cache.shards for id in shard.ids if id not in known]
    extra += [id for id in cache.rejected or () if id not in known]
    if extra:
        yield Fault(where, f"holds ids that are not in the manifest: {counted(extra)}")
    rows = [(s, i) for s in cache.shards for i, id in enumerate(s.ids) if id in known]
    stale = [s.ids[i] for s, i in rows if s.contents[i] != content_of(known[s.ids[i]], reads)]
    if stale:
        yield Fault(where, f"is older than what the manifest says of: {counted(stale)}")
    # Without any shard, sound or not, rejected.csv has reported every utterance already.
    if not (missing or extra or stale) and (cache.shards or unusable):
        yield from _cut_faults(cache, plan)
    off = [
        f"{s.ids[i]}: {s.lengths[i]} for {known[s.ids[i]].seconds} s"
        for s, i in rows
        if _off(int(s.lengths[i]), known[s.ids[i]].seconds, s.spec.hop_seconds)
    ]
    if off:
        yield Fault(where, f"numbers of frames that do not fit `hop_seconds`: {counted(off)}")


def reads_of(cache: CacheFacts, manifest: Manifest) -> Reads:
    """What the backbone of a cache reads, derived from its content hashes.

    The backbone itself knows it, but building it may need weights. Where hashes fit neither audio
    nor text, frames with a hop in time are taken to come from audio. Recognised words that equal
    the reference have its hash, so only the kind of backbone distinguishes these two.
    """
    written: Reads = "asr" if _recognised(cache) else "text"
    contents = {content for shard in cache.shards for content in shard.contents}
    fits: dict[Reads, int] = {
        reads: sum(content_of(u, reads) in contents for u in manifest)
        for reads in ("audio", written)
    }
    if fits["audio"] == fits[written]:
        timed = any(shard.spec.hop_seconds is not None for shard in cache.shards)
        return "audio" if timed or not cache.shards else written
    return max(fits, key=lambda reads: fits[reads])


def _recognised(cache: CacheFacts) -> bool:
    kinds = {str(shard.provenance.get("kind")) for shard in cache.shards}
    try:
        return any(load(PACKAGE, kind).reads == "asr" for kind in kinds)
    except ParamsError:
        return False  # the plug-in is not installed here


def _cut_faults(cache: CacheFacts, plan: list[PlannedShard]) -> Iterator[Fault]:
    planned = {p.number: [p.prefix + u.id for u in p.utterances] for p in plan}
    for shard in cache.shards:
        ids = planned.get(shard.number, [])
        rejected = {**(cache.rejected or {}), **shard.rejected}
        if [id for id in ids if id not in rejected] != list(shard.ids):
            yield Fault(shard.path, "is cut or ordered otherwise than the manifest says")
    there = {shard.number for shard in cache.shards} | cache.unusable
    for number in sorted(set(planned) - there):
        yield Fault(cache.folder / shard_name(number), "is missing")


def _off(frames: int, seconds: float | None, hop_seconds: float | None) -> bool:
    if seconds is None or not hop_seconds:
        return False
    expected = seconds / hop_seconds
    return abs(frames - expected) > SLACK_FRAMES + SLACK_PART * expected


def _name(found: CacheFacts) -> None:
    """Give the utterances of a union's shards the ids that they have in the union."""
    try:
        names = prefixes(found.folder)
    except HeronryError as error:
        found.faults.append(Fault(found.folder / MEMBERS, str(error), "own"))
        return
    if names is None:
        return
    named = []
    for shard in found.shards:
        prefix = names[shard.number] if shard.number < len(names) else ""
        ids = tuple(prefix + id for id in shard.ids)
        rejected = {prefix + id: reason for id, reason in shard.rejected.items()}
        named.append(replace(shard, ids=ids, rejected=rejected))
    found.shards = named
    count = max((shard.number for shard in named), default=-1) + 1
    if count > len(names):
        text = f"names {len(names)} shards of at least {count}"
        found.faults.append(Fault(found.folder / MEMBERS, text))


def _check_rejected(found: CacheFacts) -> None:
    path = found.folder / REJECTED
    if not path.exists():
        found.faults.append(Fault(path, "is missing"))
        return
    try:
        found.rejected = read_reasons(path)
    except (HeronryError, KeyError, ValueError) as error:
        found.faults.append(Fault(path, f"cannot be read ({error!r})", "quarantine"))


def _check_any(found: CacheFacts) -> None:
    """Report a cache without any features; of recognised words, that is legal."""
    empty = not found.unusable and not any(shard.ids for shard in found.shards)
    if empty and found.rejected and set(found.rejected.values()) != {lacking("asr")}:
        text = f"holds no features: {no_features(found.rejected)}"
        found.faults.append(Fault(found.folder, text, "own"))


def _check_sequence(found: CacheFacts) -> None:
    """Report gaps in the numbering, and shards of another backbone."""
    present = {shard.number for shard in found.shards} | found.unusable
    for number in sorted(set(range(max(present, default=-1))) - present):
        found.unusable.add(number)
        found.faults.append(Fault(found.folder / shard_name(number), "is missing"))
    # The settings of most shards are taken as those of the cache.
    settings = [(shard.spec, shard.provenance) for shard in found.shards]
    most = max(settings, key=settings.count, default=None)
    for shard, own in zip(found.shards, settings, strict=True):
        if most is not None and own != most:
            what = "spec" if own[0] != most[0] else "provenance"
            fits = found.shards[settings.index(most)].path.name
            found.faults.append(Fault(shard.path, f"has another {what} than {fits}"))


def _check_ids(found: CacheFacts) -> None:
    rows = Counter(id for shard in found.shards for id in shard.ids)
    twice = [id for id, times in rows.items() if times > 1]
    if twice:
        found.faults.append(Fault(found.folder, f"ids that occur twice: {counted(twice)}"))
    if found.rejected is None:
        return
    path = found.folder / REJECTED
    both = [id for id in found.rejected if id in rows]
    if both:
        found.faults.append(Fault(path, f"lists ids that have features: {counted(both)}"))
    unlisted = [i for s in found.shards for i in s.rejected if i not in found.rejected]
    if unlisted:
        found.faults.append(Fault(path, f"lacks ids that a shard rejects: {counted(unlisted)}"))
