"""What an extraction would do, before it does it: shards, utterances, and bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.backbone.base import Backbone
from features.backbone.entry import BackboneEntry
from features.extraction.plan import Cut, ShardPlan
from features.extraction.store import WorkStore
from features.stream import StreamSpec

CHARACTERS_A_TOKEN = 4.5  # of English under a subword vocabulary
SPECIAL_TOKENS = 2
PARTS = 16
BYTES = {"float16": 2, "float32": 4, "int16": 2}


@dataclass(frozen=True)
class Forecast:
    """What is to be done.

    Attributes:
        shards: Shards that the corpus is cut into.
        finished: Of those, how many the work store has.
        compute: Utterances that have to go through the backbone.
        copy: Utterances whose features are copied from other shards.
        seconds: Seconds of audio to be computed.
        bytes: Size of the whole cache, about.
    """

    shards: int
    finished: int
    compute: int
    copy: int
    seconds: float
    bytes: int

    def line(self) -> str:
        """For people.

        >>> Forecast(3, 1, 20, 5, 90.0, 7_000_000).line()
        '20 utterances to compute (90 s of audio), 5 to copy, 1 of 3 shards finished; about 7.0 MB'
        """
        audio = f" ({self.seconds:.0f} s of audio)" if self.seconds else ""
        return (
            f"{self.compute} utterances to compute{audio}, {self.copy} to copy, "
            f"{self.finished} of {self.shards} shards finished; about {_size(self.bytes)}"
        )


def forecast(
    plan: ShardPlan, store: WorkStore, entry: BackboneEntry, backbone: Backbone
) -> Forecast:
    """What it takes to make the shards of a corpus.

    Args:
        plan: All of them; those that are not finished are loaded, one at a time.
        store: Where finished ones are.
        entry: The backbone, as params.yaml describes it.
        backbone: The same, built.
    """
    todo = plan.only(lambda cut: not store.path(cut.fingerprint).exists())
    # Contents are compared by 64 bits of their hash, which take a twentieth of the memory.
    contents, lengths = array("Q"), array("f")
    for shard in todo:
        for utterance, content in zip(shard.utterances, shard.contents, strict=True):
            if not store.holds(content):
                contents.append(int(content[:16], 16))
                lengths.append(utterance.seconds or 0.0)
    new, seconds = _distinct(np.frombuffer(contents, np.uint64), np.frombuffer(lengths, np.float32))
    return Forecast(
        shards=len(plan),
        finished=len(plan) - len(todo),
        compute=new,
        copy=sum(cut.utterances for cut in todo.cuts) - new,
        seconds=seconds,
        bytes=cache_bytes(
            plan.cuts,
            backbone.spec,
            pooled=entry.pooling != "frames",
            dtype=entry.stored_as(backbone),
        ),
    )


def _distinct(hashes: NDArray[np.uint64], lengths: NDArray[np.float32]) -> tuple[int, float]:
    """How many hashes differ, and the sum of the length of the first of each.

    A part of the hashes at a time, by one of their bytes: to sort all of them takes more memory
    than they do.
    """
    byte, count, total = hashes.view(np.uint8)[::8], 0, 0.0
    for number in range(PARTS):
        part = byte % PARTS == number
        _, first = np.unique(hashes[part], return_index=True)
        count += len(first)
        total += float(lengths[part][first].sum(dtype=np.float64))
    return count, total


def cache_bytes(cuts: Iterable[Cut], spec: StreamSpec, *, pooled: bool, dtype: str) -> int:
    """About how large their features are: by the duration of the audio, or by the text."""
    frames = 0.0
    for cut in cuts:
        if pooled:
            frames += cut.utterances
        elif spec.hop_seconds is not None:
            frames += cut.spoken_seconds / spec.hop_seconds
        else:
            frames += cut.characters / CHARACTERS_A_TOKEN + SPECIAL_TOKENS * cut.utterances
    return round(frames * spec.dim * BYTES[dtype])


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}"
