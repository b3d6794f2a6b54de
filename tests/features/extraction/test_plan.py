"""Shards depend on manifest and sizes alone; appending utterances changes only the last ones."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given

from features.backbone.base import Reads
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.extraction.forecast import cache_bytes
from features.extraction.plan import PlannedShard, ShardPlan, plan_shards
from features.extraction.sizes import Sizes
from features.stream import StreamSpec


def manifest_of(seconds: list[float]) -> Manifest:
    rows = (
        Utterance(id=f"u{i}", audio=f"{i}.wav", sha256=f"{i}", text="x" * (i % 7), seconds=length)
        for i, length in enumerate(seconds)
    )
    return Manifest("c", tuple(rows), shard_seconds=5.0, shard_characters=12)


def prints(shards: list[PlannedShard]) -> list[str]:
    return [shard.fingerprint for shard in shards]


seconds = st.lists(st.floats(0.1, 4.0), min_size=1, max_size=30)


@given(seconds, seconds)
def test_appending_changes_the_tail_alone(old: list[float], new: list[float]) -> None:
    before = list(plan_shards(manifest_of(old), "audio", None))
    after = list(plan_shards(manifest_of(old + new), "audio", None))
    assert prints(after)[: len(before) - 1] == prints(before)[:-1]


@given(seconds)
def test_every_utterance_once_in_order(lengths: list[float]) -> None:
    shards = list(plan_shards(manifest_of(lengths), "audio", None))
    ids = [u.id for shard in shards for u in shard.utterances]
    assert ids == [f"u{i}" for i in range(len(lengths))]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards[:-1]:
        total = sum(u.seconds or 0.0 for u in shard.utterances)
        assert 5.0 <= total < 5.0 + 4.0


FRAMES = StreamSpec(4, hop_seconds=0.02)
KINDS: dict[str, tuple[Reads, StreamSpec, str]] = {
    "frames": ("audio", FRAMES, "frames"),
    "pooled": ("audio", FRAMES, "mean"),
    "without frames": ("audio", StreamSpec(4), "frames"),
    "tokens": ("text", StreamSpec(4), "frames"),
}


@pytest.mark.parametrize("kind", KINDS)
@given(lengths=seconds, more=seconds, bound=st.integers(1, 4000))
def test_shards_close_by_bytes_too(
    kind: str, lengths: list[float], more: list[float], bound: int
) -> None:
    reads, spec, pooling = KINDS[kind]
    settings = {"pooling": pooling, "store_dtype": "float16"}
    sizes = Sizes.of(spec, reads, settings)
    manifest = dataclasses.replace(manifest_of(lengths), shard_bytes=bound)
    plan = ShardPlan.of(manifest, reads, sizes)
    by_load = list(plan_shards(manifest, reads, None))
    wide = Sizes.of(dataclasses.replace(spec, dim=16), reads, settings)
    for other in (wide, Sizes.of(spec, reads, {**settings, "pooling": "std"})):
        theirs = ShardPlan.of(manifest, reads, other)
        for part in (plan, plan[1::2]):
            assert part.fits(other) is set(part.identity).issubset(theirs.identity)
    found = [cache_bytes([cut], sizes) for cut in plan.cuts]
    for cut, size in zip(plan.cuts, found, strict=True):
        # Without its last utterance a shard is below the bound.
        shorter = dataclasses.replace(manifest, utterances=manifest[cut.rows[0] : cut.rows[1] - 1])
        (rest,) = ShardPlan.of(shorter, reads, sizes).cuts or (None,)
        if rest is not None:
            assert cache_bytes([rest], sizes) <= bound
        if cut is not plan.cuts[-1] and size < bound - 1:  # then it closed by seconds, as ever
            assert reads == "text" or cut.seconds >= manifest.shard_seconds
    if max(found, default=0) < bound - 1:
        assert prints(list(plan)) == prints(by_load)
    longer = dataclasses.replace(manifest_of(lengths + more), shard_bytes=bound)
    after = prints(list(plan_shards(longer, reads, sizes)))
    assert after[: len(plan) - 1] == prints(list(plan))[:-1]


def test_text_is_divided_by_characters() -> None:
    plain = manifest_of([1.0] * 10)
    longer = manifest_of([3.0] * 10)
    assert prints(list(plan_shards(plain, "text", None))) == prints(
        list(plan_shards(longer, "text", None))
    )
    assert prints(list(plan_shards(plain, "audio", None))) != prints(
        list(plan_shards(longer, "audio", None))
    )


def test_utterances_without_the_modality_are_left_out() -> None:
    rows = (
        Utterance(id="a", text="hello"),
        Utterance(id="b", audio="b.wav", sha256="0", seconds=1.0),
    )
    manifest = Manifest("c", rows)
    for reads, expected in (("text", ["a"]), ("audio", ["b"])):
        shards = list(plan_shards(manifest, reads, None))  # type: ignore[arg-type]
        assert [u.id for shard in shards for u in shard.utterances] == expected
