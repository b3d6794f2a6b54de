"""Which utterances share a shard: a function of the manifest alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from features.backbones._backbone import Reads
from features.manifest import Manifest, Utterance
from features.shard import FORMAT, VERSION


@dataclass(frozen=True)
class PlannedShard:
    """Utterances of one shard, in manifest order, with the hash of what each contributes."""

    number: int
    utterances: tuple[Utterance, ...]
    contents: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Identity of the shard under one backbone: its ordered ids and contents."""
        rows = [[u.id, c] for u, c in zip(self.utterances, self.contents, strict=True)]
        text = json.dumps([FORMAT, VERSION, rows], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def content_of(utterance: Utterance, reads: Reads) -> str | None:
    """Hash of what a backbone would read of an utterance; None if it has nothing for it."""
    if reads == "asr":
        return utterance.asr_content
    return utterance.text_content if reads == "text" else utterance.audio_content


def plan_shards(manifest: Manifest, reads: Reads) -> Iterator[PlannedShard]:
    """Cut the manifest into shards by cumulative seconds of audio (characters for text).

    A shard closes once it holds `shard_seconds` (`shard_characters`), so appending utterances
    changes the last shard and adds new ones; all others stay as they are, byte for byte.
    Utterances without the modality are left out.
    """
    written = reads in ("text", "asr")
    limit = float(manifest.shard_characters if written else manifest.shard_seconds)
    number, load = 0, 0.0
    group: list[tuple[Utterance, str]] = []
    for utterance in manifest:
        content = content_of(utterance, reads)
        if content is None:
            continue
        group.append((utterance, content))
        load += len(utterance.words(reads) or "") if written else utterance.seconds or 0.0
        if load >= limit:
            yield PlannedShard(number, *_columns(group))
            number, load, group = number + 1, 0.0, []
    if group:
        yield PlannedShard(number, *_columns(group))


def _columns(
    group: list[tuple[Utterance, str]],
) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    return tuple(u for u, _ in group), tuple(c for _, c in group)
