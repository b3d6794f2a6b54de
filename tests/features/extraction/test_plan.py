"""Shards depend on the manifest alone, and appending utterances changes only the last ones."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.extraction.plan import PlannedShard, plan_shards


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
    before = list(plan_shards(manifest_of(old), "audio"))
    after = list(plan_shards(manifest_of(old + new), "audio"))
    assert prints(after)[: len(before) - 1] == prints(before)[:-1]


@given(seconds)
def test_every_utterance_once_in_order(lengths: list[float]) -> None:
    shards = list(plan_shards(manifest_of(lengths), "audio"))
    ids = [u.id for shard in shards for u in shard.utterances]
    assert ids == [f"u{i}" for i in range(len(lengths))]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards[:-1]:
        total = sum(u.seconds or 0.0 for u in shard.utterances)
        assert 5.0 <= total < 5.0 + 4.0


def test_text_is_divided_by_characters() -> None:
    plain = manifest_of([1.0] * 10)
    longer = manifest_of([3.0] * 10)
    assert prints(list(plan_shards(plain, "text"))) == prints(list(plan_shards(longer, "text")))
    assert prints(list(plan_shards(plain, "audio"))) != prints(list(plan_shards(longer, "audio")))


def test_utterances_without_the_modality_are_left_out() -> None:
    rows = (
        Utterance(id="a", text="hello"),
        Utterance(id="b", audio="b.wav", sha256="0", seconds=1.0),
    )
    manifest = Manifest("c", rows)
    for reads, expected in (("text", ["a"]), ("audio", ["b"])):
        shards = list(plan_shards(manifest, reads))  # type: ignore[arg-type]
        assert [u.id for shard in shards for u in shard.utterances] == expected
