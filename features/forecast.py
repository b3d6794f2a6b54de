"""What an extraction would do, before it does it: shards, utterances, and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from features.backbone_entry import BackboneEntry
from features.backbones._backbone import CHARACTERS_A_SECOND, Backbone
from features.manifest import Utterance
from features.shard_plan import PlannedShard
from features.store import WorkStore
from features.stream import StreamSpec

CHARACTERS_A_TOKEN = 4.5  # of English under a subword vocabulary
SPECIAL_TOKENS = 2
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
    planned: Sequence[PlannedShard], store: WorkStore, entry: BackboneEntry, backbone: Backbone
) -> Forecast:
    """What it takes to make the shards of a corpus.

    Args:
        planned: All of them.
        store: Where finished ones are.
        entry: The backbone, as params.yaml describes it.
        backbone: The same, built.
    """
    finished, new, copied = 0, {}, 0
    for shard in planned:
        if store.path(shard.fingerprint).exists():
            finished += 1
            continue
        for utterance, content in zip(shard.utterances, shard.contents, strict=True):
            if content in new or store.holds(content):
                copied += 1
            else:
                new[content] = utterance
    utterances = [utterance for shard in planned for utterance in shard.utterances]
    pooled, spec = entry.pooling != "frames", backbone.spec
    frames = len(utterances) if pooled else sum(_frames(u, spec) for u in utterances)
    return Forecast(
        shards=len(planned),
        finished=finished,
        compute=len(new),
        copy=copied,
        seconds=_seconds(new.values()),
        bytes=round(frames * spec.dim * BYTES[entry.stored_as(backbone)]),
    )


def _seconds(utterances: Iterable[Utterance]) -> float:
    return sum(utterance.seconds or 0.0 for utterance in utterances)


def _frames(utterance: Utterance, spec: StreamSpec) -> float:
    """About how many frames an utterance has: by its duration, or by its text."""
    if spec.hop_seconds is not None:
        seconds = utterance.seconds or len(utterance.text or "") / CHARACTERS_A_SECOND
        return seconds / spec.hop_seconds
    return len(utterance.text or "") / CHARACTERS_A_TOKEN + SPECIAL_TOKENS


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}"
