"""Divides a manifest into shards, by the manifest and the sizes of an entry's features alone.

The shards of a union are those of its members, one member after the other: with the members' own
ids, so that they are the same files, byte for byte, and nothing is extracted or stored twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from features.backbone.base import Reads, content_of
from features.cache.shard import FORMAT, VERSION, Shard
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.errors import ManifestError
from features.extraction.sizes import Sizes, spoken_seconds
from features.extraction.store import WorkStore


@dataclass(frozen=True)
class PlannedShard:
    """Utterances of one shard, in manifest order, with their content hashes.

    Those of a member of a union have its own ids; `prefix` is what they begin with in the manifest.
    """

    number: int
    utterances: tuple[Utterance, ...]
    contents: tuple[str, ...]
    prefix: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ordered ids and contents: identity of the shard under one backbone."""
        rows = [[u.id, c] for u, c in zip(self.utterances, self.contents, strict=True)]
        text = json.dumps([FORMAT, VERSION, rows], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def is_held_by(self, shard: Shard) -> bool:
        """Whether a finished shard is this one."""
        pairs = zip(self.utterances, self.contents, strict=True)
        rows = [(u.id, content) for u, content in pairs if u.id not in shard.rejected]
        rejected = shard.rejected.keys() <= {utterance.id for utterance in self.utterances}
        return rejected and rows == list(zip(shard.ids, shard.contents, strict=True))


def lacking(reads: Reads) -> str:
    """Reason for rejecting an utterance without input for a backbone."""
    return f"has no {reads}"


def plan_shards(manifest: Manifest, reads: Reads, sizes: Sizes | None) -> Iterator[PlannedShard]:
    """Divide a manifest into shards by cumulative seconds of audio (characters for text).

    A shard ends once it holds `shard_seconds` (`shard_characters`), or features of about
    `shard_bytes` by their sizes, so that appending utterances changes the last shard and adds new
    ones; all others stay the same, byte for byte. Utterances without the modality are left out.

    Args:
        manifest: Manifest to divide.
        reads: Modality that the backbone reads.
        sizes: Sizes of the features; None: unknown, so that `shard_bytes` closes no shard.
    """
    return (shard for _, _, shard in _cut(manifest, reads, sizes))


@dataclass(frozen=True)
class Cut:
    """A planned shard without its utterances: place in the manifest, identity and sizes.

    Attributes:
        number: Number of the shard.
        rows: First row of the manifest that may belong to it, and the row behind its last.
        fingerprint: Fingerprint of the shard.
        utterances: Number of utterances.
        seconds: Seconds of audio.
        spoken_seconds: Seconds of speech, estimated from the words of utterances without audio.
        characters: Characters of text.
        prefix: What its ids begin with in the manifest.
    """

    number: int
    rows: tuple[int, int]
    fingerprint: str
    utterances: int
    seconds: float
    spoken_seconds: float
    characters: int
    prefix: str = ""

    @classmethod
    def of(cls, shard: PlannedShard, rows: tuple[int, int]) -> Cut:
        """Summarise a shard."""
        lengths = [len(u.text or "") for u in shard.utterances]
        seconds = [u.seconds or 0.0 for u in shard.utterances]
        return cls(
            number=shard.number,
            rows=rows,
            fingerprint=shard.fingerprint,
            utterances=len(lengths),
            seconds=sum(seconds),
            spoken_seconds=sum(map(spoken_seconds, shard.utterances)),
            characters=sum(lengths),
            prefix=shard.prefix,
        )


@dataclass(frozen=True)
class ShardPlan(Sequence[PlannedShard]):
    """The shards of a manifest, each loaded on access and not kept in memory.

    Attributes:
        manifest: Manifest that is divided.
        reads: Modality that the backbone reads.
        sizes: Sizes of the features; None: unknown.
        cuts: A small record for each shard.
    """

    manifest: Manifest
    reads: Reads
    sizes: Sizes | None
    cuts: tuple[Cut, ...]

    @classmethod
    def of(cls, manifest: Manifest, reads: Reads, sizes: Sizes | None) -> ShardPlan:
        """Divide a manifest, reading it once; see `plan_shards`."""
        found = _cut(manifest, reads, sizes)
        return cls(manifest, reads, sizes, tuple(Cut.of(shard, (a, b)) for a, b, shard in found))

    @property
    def identity(self) -> list[str]:
        """Fingerprint of each shard, behind what its ids begin with."""
        return [cut.prefix + cut.fingerprint for cut in self.cuts]

    def only(self, wanted: Callable[[Cut], bool]) -> ShardPlan:
        """The plan of the shards for which `wanted` is true."""
        return dataclasses.replace(self, cuts=tuple(cut for cut in self.cuts if wanted(cut)))

    def lacking(self, store: WorkStore) -> ShardPlan:
        """The plan of the shards that a store does not have."""
        return self.only(lambda cut: not store.path(cut.fingerprint).exists())

    def fits(self, sizes: Sizes) -> bool:
        """Whether features of other sizes are cut into these shards, too."""
        if sizes == self.sizes:
            return True
        first = all(cut.number == place for place, cut in enumerate(self.cuts))
        # The characters of a cut are those of the text, which `asr` does not read.
        near = self.reads == "asr" or self._near_bytes(sizes) or self._near_bytes(self.sizes)
        if first and not near:
            return True  # without reading the manifest again: none of them closed by its bytes
        others = {cut.fingerprint for cut in ShardPlan.of(self.manifest, self.reads, sizes).cuts}
        return all(cut.fingerprint in others for cut in self.cuts)

    def _near_bytes(self, sizes: Sizes | None) -> bool:
        """Whether features of some sizes have nearly `shard_bytes` in any of the shards."""
        limits = {part.prefix: 0.999 * part.shard_bytes for part in self.manifest.parts}
        return sizes is not None and any(
            sizes.bytes(cut.utterances, cut.spoken_seconds, cut.characters) >= limits[cut.prefix]
            for cut in self.cuts
        )

    def __len__(self) -> int:
        return len(self.cuts)

    def __iter__(self) -> Iterator[PlannedShard]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        cuts = self.cuts[index]
        if isinstance(cuts, tuple):
            return dataclasses.replace(self, cuts=cuts)
        first, last = cuts.rows
        rows = ((u, content_of(u, self.reads)) for u in self.manifest[first:last])
        held = [(_without(cuts.prefix, u), c) for u, c in rows if c is not None]
        shard = PlannedShard(cuts.number, *_columns(held), cuts.prefix)
        if shard.fingerprint != cuts.fingerprint:
            raise ManifestError(
                f"corpus {self.manifest.corpus!r}: rows {first + 1} to {last} of its manifest are "
                "others than when it was read; expected that nobody changes it meanwhile: start "
                "again (finished shards are kept)"
            )
        return shard


def seconds_of(shards: Sequence[PlannedShard]) -> float:
    """Seconds of audio of some shards; those of a plan are not loaded."""
    if isinstance(shards, ShardPlan):
        return sum(cut.seconds for cut in shards.cuts)
    return sum(u.seconds or 0.0 for shard in shards for u in shard.utterances)


def _cut(
    manifest: Manifest, reads: Reads, sizes: Sizes | None
) -> Iterator[tuple[int, int, PlannedShard]]:
    """Each shard with its rows in the manifest: number of the first, and behind the last."""
    written = reads in ("text", "asr")
    number, last, rows = 0, 0, iter(manifest)
    for part in manifest.parts:
        limit = float(part.shard_characters if written else part.shard_seconds)
        seconds, spoken, characters, first = 0.0, 0.0, 0, last
        group: list[tuple[Utterance, str]] = []
        for utterance in itertools.islice(rows, part.rows):
            last += 1
            content = content_of(utterance, reads)
            if content is None:
                continue
            group.append((_without(part.prefix, utterance), content))
            seconds += utterance.seconds or 0.0
            spoken += spoken_seconds(utterance)
            characters += len((utterance.words(reads) if written else utterance.text) or "")
            size = 0.0 if sizes is None else sizes.bytes(len(group), spoken, characters)
            if (characters if written else seconds) >= limit or size >= part.shard_bytes:
                yield first, last, PlannedShard(number, *_columns(group), part.prefix)
                seconds, spoken, characters = 0.0, 0.0, 0
                number, first, group = number + 1, last, []
        if group:
            yield first, last, PlannedShard(number, *_columns(group), part.prefix)
            number += 1


def _without(prefix: str, utterance: Utterance) -> Utterance:
    """An utterance with its member's own id."""
    if not prefix:
        return utterance
    return dataclasses.replace(utterance, id=utterance.id.removeprefix(prefix))


def _columns(
    group: list[tuple[Utterance, str]],
) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    return tuple(u for u, _ in group), tuple(c for _, c in group)
