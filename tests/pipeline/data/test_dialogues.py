"""Batches of dialogues: complete, in order of turn, without speakers; order of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.errors import CacheError
from features.stream import StreamSpec
from pipeline.data.batching import ordered_batches, shuffled_batches
from pipeline.data.dialogues import places_by_dialogue
from pipeline.data.examples import Examples, join
from pipeline.fusion.lpgnet import LPGNet
from pipeline.model.batch import Batch

CLASSES = ["calm", "angry", "sad"]
LENGTHS = [3, 1, 5, 2, 4, 3, 1]  # turns of the dialogues
DIMS = {"text": 5, "speech": 4}


def labels_of(lengths: Sequence[int] = tuple(LENGTHS)) -> list[Label]:
    """Turns in shuffled order; `alone` belongs to no dialogue."""
    rows = [
        Label(f"d{d}t{t}", CLASSES[(d + t) % 3], f"s{t % 2}", f"d{d}", t, splits=("train",))
        for d, length in enumerate(lengths)
        for t in range(length)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return [Label("alone", "sad", "s0", splits=("train",)), *(rows[i] for i in order)]


def write_cache(folder: Path, labels: Sequence[Label], dim: int, frames: int = 1) -> None:
    generator = np.random.default_rng(dim)
    writer = CacheWriter(spec=StreamSpec(dim), provenance={"kind": "test"}, dtype="float32")
    rows = [
        writer.round(label.id, "c", generator.normal(size=(frames, dim)).astype(np.float32))
        for label in labels
    ]
    writer.write(folder / shard_name(0), rows)


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    labels = labels_of()
    for slot, dim in DIMS.items():
        write_cache(tmp_path / slot, labels, dim)
    return join({slot: tmp_path / slot for slot in DIMS}, labels, CLASSES)


def check_batch(examples: Examples, batch: Batch) -> None:
    """Check that every turn has its own label and vectors, and padding zeros and -1."""
    labels = {label.id: label for label in examples.labels}
    assert batch.labels is not None
    mask = batch.labels >= 0
    rows, turns = torch.nonzero(mask, as_tuple=True)
    assert len(rows) == len(batch.ids)
    for id, row, turn in zip(batch.ids, rows.tolist(), turns.tolist(), strict=True):
        assert CLASSES[int(batch.labels[row, turn])] == labels[id].label
        assert turn == (labels[id].turn or 0)
        for slot, stream in batch.streams.items():
            expected = torch.from_numpy(np.array(examples.readers[slot][id][0]))
            assert torch.equal(stream.values[row, turn], expected)
    for stream in batch.streams.values():
        assert torch.equal(stream.mask, mask)
        assert not stream.values[~mask].any()


def test_turns_are_grouped_and_ordered() -> None:
    labels = labels_of()
    groups = places_by_dialogue(labels)
    assert sorted(place for group in groups for place in group) == list(range(len(labels)))
    assert groups[0] == [0]  # an utterance without a dialogue
    for group in groups[1:]:
        turns = [labels[place] for place in group]
        assert len({turn.dialogue for turn in turns}) == 1
        assert [turn.turn for turn in turns] == list(range(len(turns)))


def test_turns_without_numbers_keep_the_corpus_order() -> None:
    labels = [dataclasses.replace(label, turn=None) for label in labels_of()]
    for group in places_by_dialogue(labels):
        assert group == sorted(group)


def test_utterances_without_a_dialogue_are_dialogues_of_one_turn() -> None:
    labels = [Label(f"u{i}", "sad", "s") for i in range(3)]
    assert places_by_dialogue(labels) == [[0], [1], [2]]


def test_batches_hold_whole_dialogues(examples: Examples) -> None:
    generator, orders = np.random.default_rng(0), []
    for _ in range(2):
        batches = list(shuffled_batches(examples, examples.labels, 3, generator, unit="dialogue"))
        # Eight dialogues, and `size` counts them.
        assert sorted(len(batch.streams["text"].mask) for batch in batches) == [2, 3, 3]
        for batch in batches:
            check_batch(examples, batch)
        seen = [id for batch in batches for id in batch.ids]
        assert sorted(seen) == sorted(label.id for label in examples.labels)
        orders.append(seen)
    assert orders[0] != orders[1]


def test_places_are_those_of_the_scored_turns(examples: Examples) -> None:
    found: list[int] = []
    widths = []
    for places, batch in ordered_batches(examples, examples.labels, 3, unit="dialogue"):
        assert batch.labels is not None
        scored = batch.labels.flatten()[batch.labels.flatten() >= 0]
        assert [examples.labels[place].id for place in places] == list(batch.ids)
        names = [CLASSES.index(examples.labels[place].class_name) for place in places]
        assert scored.tolist() == names
        found += places
        widths.append(batch.labels.shape[1])
        check_batch(examples, batch)
    assert sorted(found) == list(range(len(examples.labels)))
    assert widths == sorted(widths)


def test_turns_of_another_split_are_no_context(examples: Examples) -> None:
    some = [label for label in examples.labels if label.turn != 1]
    (_, batch), *_ = ordered_batches(examples, some, 99, unit="dialogue")
    assert sorted(batch.ids) == sorted(label.id for label in some)
    assert batch.streams["text"].mask.sum(1).tolist() == sorted(
        [1, *(max(1, n - 1) for n in LENGTHS)]
    )


def test_speakers_change_nothing(examples: Examples) -> None:
    others = [
        dataclasses.replace(x, speaker=f"x{i}", gender="f") for i, x in enumerate(examples.labels)
    ]
    changed = dataclasses.replace(examples, labels=others)
    torch.manual_seed(0)
    model = LPGNet(examples.specs, 3, d_model=8).eval()
    logits = []
    for these in (examples, changed):
        (_, batch), *_ = ordered_batches(these, these.labels, 99, unit="dialogue")
        logits.append(model(batch).logits)
    assert torch.equal(*logits)


def test_caches_of_frames_are_refused(tmp_path: Path) -> None:
    labels = labels_of()
    write_cache(tmp_path / "text", labels, 5)
    write_cache(tmp_path / "speech", labels, 4, frames=2)
    slots = {slot: tmp_path / slot for slot in DIMS}
    examples = join(slots, labels, CLASSES)
    said = r"the speech slot: .*speech holds 2 frames of utterance .*`pooling: mean`"
    with pytest.raises(CacheError, match=said):
        next(ordered_batches(examples, labels, 2, unit="dialogue"))
    with pytest.raises(CacheError, match=said):
        next(shuffled_batches(examples, labels, 2, np.random.default_rng(0), unit="dialogue"))


def test_bins_are_stacked_too(tmp_path: Path) -> None:
    labels = labels_of()
    writer = CacheWriter(spec=StreamSpec(1, bins=9), provenance={"kind": "test"}, dtype="int16")
    rows = [writer.round(x.id, "c", np.array([i % 9], np.int16)) for i, x in enumerate(labels)]
    writer.write(tmp_path / shard_name(0), rows)
    examples = join({"prosody": tmp_path}, labels, CLASSES)
    for _, batch in ordered_batches(examples, labels, 3, unit="dialogue"):
        stream = batch.streams["prosody"]
        expected = [int(examples.readers["prosody"][id][0]) for id in batch.ids]
        assert stream.values.dtype == torch.int64
        assert stream.values[stream.mask].tolist() == expected


def test_batches_of_utterances_keep_their_order_between_releases(tmp_path: Path) -> None:
    """Results of a seed must not change: the order is recomputed here, draw by draw."""
    labels = [Label(f"u{i}", CLASSES[i % 3], "s", splits=("train",)) for i in range(200)]
    lengths = np.random.default_rng(1).integers(1, 9, 200)
    writer = CacheWriter(spec=StreamSpec(2), provenance={"kind": "test"}, dtype="float32")
    rows = [
        writer.round(x.id, "c", np.zeros((n, 2), np.float32))
        for x, n in zip(labels, lengths, strict=True)
    ]
    writer.write(tmp_path / shard_name(0), rows)
    examples = join({"text": tmp_path}, labels, CLASSES)
    expected, generator, size = [], np.random.default_rng(5), 7
    order = generator.permutation(200)
    for start in range(0, 200, 16 * size):
        pool = sorted(order[start : start + 16 * size], key=lambda i: lengths[i])
        groups = [pool[i : i + size] for i in range(0, len(pool), size)]
        expected += [[f"u{i}" for i in groups[g]] for g in generator.permutation(len(groups))]
    batches = shuffled_batches(examples, labels, size, np.random.default_rng(5))
    assert [list(batch.ids) for batch in batches] == expected
    by_length = sorted(range(200), key=lambda i: lengths[i])
    places = [places for places, _ in ordered_batches(examples, labels, size)]
    assert places == [by_length[i : i + size] for i in range(0, 200, size)]
