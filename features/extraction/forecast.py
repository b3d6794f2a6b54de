"""Estimates what an extraction will do: shards, utterances, seconds of audio, bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.extraction.plan import Cut, ShardPlan
from features.extraction.sizes import Sizes
from features.extraction.store import WorkStore
from features.process.terminal import size

PARTS = 16  # in which hashes are sorted


@dataclass(frozen=True)
class Forecast:
    """Estimated work of an extraction.

    Attributes:
        shards: Shards of the corpus.
        finished: Shards that the work store has.
        compute: Utterances that have to go through the backbone.
        copy: Utterances whose features are copied from other shards.
        seconds: Seconds of audio to be computed.
        bytes: Approximate size of the whole cache.
    """

    shards: int
    finished: int
    compute: int
    copy: int
    seconds: float
    bytes: int

    def line(self) -> str:
        """The estimate in words.

        >>> Forecast(3, 1, 20, 5, 90.0, 7_000_000).line()
        '20 utterances to compute (90 s of audio), 5 to copy, 1 of 3 shards finished; about 7.0 MB'
        """
        audio = f" ({self.seconds:.0f} s of audio)" if self.seconds else ""
        return (
            f"{self.compute} utterances to compute{audio}, {self.copy} to copy, "
            f"{self.finished} of {self.shards} shards finished; about {size(self.bytes)}"
        )


def forecast(plan: ShardPlan, store: WorkStore, sizes: Sizes) -> Forecast:
    """Estimate the extraction of a corpus.

    Args:
        plan: All shards; unfinished ones are loaded, one at a time.
        store: Work store of the backbone.
        sizes: Sizes of its features.
    """
    todo = plan.lacking(store)
    # 64 bits of each content hash are compared, which take a twentieth of the text's memory.
    contents, lengths = array("Q"), array("f")
    for shard in todo:
        held = store.held(shard.contents)
        for utterance, content in zip(shard.utterances, shard.contents, strict=True):
            if content not in held:
                contents.append(int(content[:16], 16))
                lengths.append(utterance.seconds or 0.0)
    new, seconds = _distinct(np.frombuffer(contents, np.uint64), np.frombuffer(lengths, np.float32))
    return Forecast(
        shards=len(plan),
        finished=len(plan) - len(todo),
        compute=new,
        copy=sum(cut.utterances for cut in todo.cuts) - new,
        seconds=seconds,
        bytes=cache_bytes(plan.cuts, sizes),
    )


def _distinct(hashes: NDArray[np.uint64], lengths: NDArray[np.float32]) -> tuple[int, float]:
    """Number of distinct hashes, and the sum of the lengths of the first of each."""
    # A part of the hashes at a time, chosen by one of their bytes: sorting all of them at once
    # would need more memory than they take.
    byte, count, total = hashes.view(np.uint8)[::8], 0, 0.0
    for number in range(PARTS):
        part = byte % PARTS == number
        _, first = np.unique(hashes[part], return_index=True)
        count += len(first)
        total += float(lengths[part][first].sum(dtype=np.float64))
    return count, total


def cache_bytes(cuts: Iterable[Cut], sizes: Sizes) -> int:
    """Approximate size of the features of some shards."""
    return round(
        sum(sizes.bytes(cut.utterances, cut.spoken_seconds, cut.characters) for cut in cuts)
    )
