"""What an extractor is made from, and what it did: both travel between processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from features.backbone_entry import BackboneEntry


@dataclass
class Tally:
    """What was done.

    Attributes:
        computed: Utterances that went through the backbone.
        copied: Utterances copied from other shards in the work store, or from their like.
        failed: Utterances that were tried, and rejected.
        seconds: Seconds of audio that went through the backbone.
    """

    computed: int = 0
    copied: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, more: Tally) -> None:
        """Sum up."""
        self.computed += more.computed
        self.copied += more.copied
        self.failed += more.failed
        self.seconds += more.seconds


@dataclass(frozen=True)
class Recipe:
    """All that it takes to make an extractor, here or in another process.

    Attributes:
        entry: The backbone as params.yaml describes it.
        store: Root of the work store.
        batch_seconds: Budget of a batch in padded seconds; None: by device.
        workers: Processes that prepare inputs; None: as many as pay off.
    """

    entry: BackboneEntry
    store: Path
    batch_seconds: float | None = None
    workers: int | None = None
