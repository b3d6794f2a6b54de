"""Lists every fault of a cache folder, where `CacheReader` stops at the first.

`check_cache` compares a folder with its format (docs/format.md), `check_against` with the manifest
that it should have been made from. One shard is open at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from features.arguments import counted
from features.backbone.base import Reads, content_of
from features.backbone.entry import PACKAGE
from features.cache.members import MEMBERS, prefixes
from features.cache.reader import no_features
from features.cache.shard import shard_name
from features.corpus.manifest import Manifest
from features.corpus.utterance import SHARD_BYTES
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
from features.extraction.sizes import Sizes
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
    cut, unusable = _cut_faults(cache, plan_shards(manifest, reads, sizes_of(cache, reads)))
    if cut and all(part.shard_bytes == SHARD_BYTES for part in manifest.parts):
        # Older releases, whose manifests say nothing of bytes, closed shards without them.
        older = _cut_faults(cache, plan_shards(manifest, reads, None))
        cut, unusable = (cut, unusable) if older[0] else older
    found, where = _Differences.between(cache, manifest, reads), cache.folder
    missing = [id for id in found.absent if id not in unusable]
    if missing and cache.rejected is not None:
        yield Fault(where, f"lacks utterances of the manifest: {counted(missing)}")
    if found.extra:
        yield Fault(where, f"holds ids that are not in the manifest: {counted(found.extra)}")
    if found.stale:
        yield Fault(where, f"is older than what the manifest says of: {counted(found.stale)}")
    # Without any shard, sound or not, rejected.csv has reported every utterance already.
    if not (missing or found.extra or found.stale) and (cache.shards or unusable):
        yield from cut
    if found.off:
        text = f"numbers of frames that do not fit `hop_seconds`: {counted(found.off)}"
        yield Fault(where, text)


def reads_of(cache: CacheFacts, manifest: Manifest) -> Reads:
    """What the backbone of a cache reads, derived from its content hashes.

    The backbone itself knows it, but building it may need weights. Where hashes fit neither audio
    nor text, frames with a hop in time are taken to come from audio. Recognised words that equal
    the reference have its hash, so only the kind of backbone distinguishes these two.
    """
    written: Reads = "asr" if _recognised(cache) else "text"
    contents = {content for shard in cache.shards for content in shard.contents}
    heard = read = 0
    for utterance in manifest:
        heard += content_of(utterance, "audio") in contents
        read += content_of(utterance, written) in contents
    if heard == read:
        timed = any(shard.spec.hop_seconds is not None for shard in cache.shards)
        return "audio" if timed or not cache.shards else written
    return "audio" if heard > read else written


def sizes_of(cache: CacheFacts, reads: Reads) -> Sizes | None:
    """Sizes of the features, which decide how shards are cut; None without any shard."""
    if not cache.shards:
        return None
    shard = cache.shards[0]
    recorded = {**shard.provenance, "store_dtype": shard.dtype}
    if type(recorded.get("window_hop_seconds")) not in (int, float):
        recorded["window_hop_seconds"] = None  # another program may write anything
    return Sizes.of(shard.spec, reads, recorded)


def _recognised(cache: CacheFacts) -> bool:
    kinds = {str(shard.provenance.get("kind")) for shard in cache.shards}
    try:
        return any(load(PACKAGE, kind).reads == "asr" for kind in kinds)
    except ParamsError:
        return False  # the plug-in is not installed here


@dataclass
class _Differences:
    """Ids in which sound shards and rejected.csv differ from a manifest.

    Attributes:
        absent: Ids of the manifest that neither has.
        extra: Ids that the manifest lacks.
        stale: Ids of rows whose content is another now.
        off: Ids of rows whose frames do not fit the seconds, with both.
    """

    absent: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)

    @classmethod
    def between(cls, cache: CacheFacts, manifest: Manifest, reads: Reads) -> Self:
        """Compare row by row, reading the manifest once."""
        found, rejected = cls(), dict.fromkeys(cache.rejected or ())
        rows = {id: (shard, i) for shard in cache.shards for i, id in enumerate(shard.ids)}
        left = dict.fromkeys([*rows, *rejected])
        for utterance in manifest:
            left.pop(utterance.id, None)
            if utterance.id not in rows:
                if utterance.id not in rejected:
                    found.absent.append(utterance.id)
                continue
            shard, place = rows[utterance.id]
            if shard.contents[place] != content_of(utterance, reads):
                found.stale.append(utterance.id)
            length = int(shard.lengths[place])
            if _off(length, utterance.seconds, shard.spec.hop_seconds):
                found.off.append(f"{utterance.id}: {length} for {utterance.seconds} s")
        found.extra = list(left)
        return found


def _cut_faults(cache: CacheFacts, plan: Iterable[PlannedShard]) -> tuple[list[Fault], set[str]]:
    """Faults in how shards are cut, and the ids of damaged or missing ones."""
    shards = {shard.number: shard for shard in cache.shards}
    rejected = cache.rejected or {}
    missing: list[Fault] = []
    unusable: set[str] = set()
    for each in plan:
        ids = [each.prefix + utterance.id for utterance in each.utterances]
        shard = shards.get(each.number)
        if each.number in cache.unusable:
            unusable.update(ids)
        elif shard is None:
            missing.append(Fault(cache.folder / shard_name(each.number), "is missing"))
        elif [i for i in ids if i not in rejected and i not in shard.rejected] == list(shard.ids):
            del shards[each.number]
    text = "is cut or ordered otherwise than the manifest says"
    return [*(Fault(shard.path, text) for shard in shards.values()), *missing], unusable


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
    alike: dict[str, list[ShardFacts]] = {}
    for shard in found.shards:
        settings = json.dumps([shard.spec.to_dict(), shard.provenance], sort_keys=True)
        alike.setdefault(settings, []).append(shard)
    most = max(alike.values(), key=len, default=[])
    for shard in found.shards:
        fits = most[0]
        if (shard.spec, shard.provenance) != (fits.spec, fits.provenance):
            what = "spec" if shard.spec != fits.spec else "provenance"
            found.faults.append(Fault(shard.path, f"has another {what} than {fits.path.name}"))


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
