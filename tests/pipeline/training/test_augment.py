"""SeqAug and mixup: what they move, what they keep, and that padding stays padding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from features.stream import Stream
from pipeline.model.batch import UNSCORED, Batch, Targets
from pipeline.training.augment import mixup, seqaug

LENGTHS = [9, 4, 1, 7]
WIDTH = 40


@pytest.fixture
def batch() -> Batch:
    """Two real-valued slots that may be shuffled, one that may not, and bins."""
    torch.manual_seed(0)

    def frames() -> Stream:
        return Stream.pad([1 + torch.rand(length, WIDTH) for length in LENGTHS])

    streams = {slot: frames() for slot in ("text", "speech", "nonverbal")}
    streams["prosody"] = Stream.pad([torch.randint(1, 9, (length,)) for length in LENGTHS])
    return Batch(streams, torch.tensor([0, 1, 1, 2]), ("a", "b", "c", "d"))


def same(first: Stream, second: Stream) -> bool:
    return torch.equal(first.values, second.values) and torch.equal(first.mask, second.mask)


def test_seqaug_moves_some_dimensions_together_and_others_not(batch: Batch) -> None:
    moved = seqaug(batch, 1.0, np.random.default_rng(0))
    for slot in ("text", "speech"):
        before, after = batch.streams[slot], moved.streams[slot]
        assert torch.equal(before.mask, after.mask)
        assert torch.equal(after.values * ~after.mask[..., None], torch.zeros_like(after.values))
        for old, new in zip(before.unpad(), after.unpad(), strict=True):
            assert torch.equal(old.sort(0).values, new.sort(0).values)  # within each dimension
            orders = {
                tuple((new[:, d, None] == old[None, :, d]).int().argmax(1).tolist())
                for d in range(WIDTH)
            }
            still = tuple(range(len(old)))
            assert len(orders - {still}) <= 1
    for slot in ("nonverbal", "prosody"):
        assert same(moved.streams[slot], batch.streams[slot])
    assert moved.labels is batch.labels


def test_seqaug_share_is_beta_and_at_least_one_dimension() -> None:
    """The mean of Beta(0.5, 0.5) is 1/2, its variance 1/8: most shares are near 0 or 1."""
    generator = np.random.default_rng(0)
    stream = Stream.pad([torch.rand(30, WIDTH) for _ in range(600)])
    moved = seqaug(Batch({"speech": stream}), 1.0, generator).streams["speech"]
    share = (moved.values != stream.values).any(1).double().mean(1)
    assert float(share.min()) >= 1 / WIDTH
    assert float(share.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(share.var()) == pytest.approx(0.125, abs=0.02)


def test_seqaug_probability_is_by_utterance_and_slot() -> None:
    generator = np.random.default_rng(0)
    streams = {slot: Stream.pad([torch.rand(30, 4)] * 2000) for slot in ("speech", "text")}
    moved = seqaug(Batch(streams), 0.3, generator).streams
    changed = {s: (moved[s].values != streams[s].values).any((1, 2)) for s in streams}
    for slot in streams:
        assert float(changed[slot].double().mean()) == pytest.approx(0.3, abs=0.04)
    both = changed["speech"] & changed["text"]
    assert float(both.double().mean()) == pytest.approx(0.09, abs=0.03)


def test_augmentation_leaves_its_argument_alone_and_repeats(batch: Batch) -> None:
    before = {slot: stream.values.clone() for slot, stream in batch.streams.items()}
    for first, again in (
        [seqaug(batch, 0.5, np.random.default_rng(1)) for _ in range(2)],
        [mixup(batch, 0.4, 3, np.random.default_rng(1)) for _ in range(2)],
    ):
        for slot in batch.streams:
            assert same(first.streams[slot], again.streams[slot])
            assert torch.equal(batch.streams[slot].values, before[slot])


def test_mixup_blends_values_and_labels_by_the_same_share(batch: Batch) -> None:
    mixed = mixup(batch, 0.8, 3, np.random.default_rng(0))
    assert mixed.labels is not None
    assert batch.labels is not None
    assert torch.allclose(mixed.labels.sum(1), torch.ones(4))
    for row, shares in enumerate(mixed.labels.tolist()):
        own = int(batch.labels[row])
        other = next(c for c in range(3) if c != own and shares[c] > 0)
        assert shares[own] + shares[other] == pytest.approx(1)
        mates = [i for i in range(4) if int(batch.labels[i]) == other]
        for slot in ("text", "speech", "nonverbal"):
            stream = batch.streams[slot]
            blends = [
                shares[own] * stream.values[row] + shares[other] * stream.values[mate]
                for mate in mates
            ]
            equal = [torch.allclose(mixed.streams[slot].values[row], b) for b in blends]
            assert equal.count(True) == 1
            mate = mates[equal.index(True)]
            mask = mixed.streams[slot].mask[row]
            assert int(mask.sum()) == max(LENGTHS[row], LENGTHS[mate])
    assert same(mixed.streams["prosody"], batch.streams["prosody"])


def test_mixup_leaves_an_utterance_without_a_mate(batch: Batch) -> None:
    alike = Batch(batch.streams, torch.tensor([1, 1, 1, 1]), batch.ids)
    mixed = mixup(alike, 0.4, 3, np.random.default_rng(0))
    for slot in batch.streams:
        assert same(mixed.streams[slot], batch.streams[slot])
    assert mixed.labels is not None
    assert mixed.labels.tolist() == [[0.0, 1.0, 0.0]] * 4


def test_mixup_shares_are_beta() -> None:
    """Beta(a, a) has variance 1 / (4 (2 a + 1))."""
    stream = Stream.pad([torch.zeros(1, 2)] * 2000)
    labels = torch.arange(2000) % 2
    mixed = mixup(Batch({"text": stream}, labels), 0.4, 2, np.random.default_rng(0)).labels
    assert mixed is not None
    own = mixed[torch.arange(2000), labels].double()
    assert float(own.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(own.var()) == pytest.approx(1 / (4 * 1.8), abs=0.01)


def test_mixup_blends_other_targets_where_both_have_them(batch: Batch) -> None:
    """By the share that classes are blended by; without classes mates are drawn from all others."""
    assert batch.labels is not None
    rows = len(batch.labels)
    values = torch.arange(float(rows))[:, None].repeat(1, 2)
    values[0, 0] = torch.nan
    present = torch.ones(rows, dtype=torch.bool)
    targets = Targets(present, batch.labels, values=values).numbered()
    given = dataclasses.replace(batch, targets=targets)
    blended = mixup(given, 0.5, 3, np.random.default_rng(0)).targets
    alone = mixup(batch, 0.5, 3, np.random.default_rng(0)).labels
    assert blended is not None
    assert alone is not None
    assert torch.equal(blended.labels, alone)
    assert blended.values is not None
    assert not blended.values[:, 1].isnan().any()
    assert blended.values[0, 0].isnan()
    assert blended.whole is not None
    assert torch.equal(blended.whole.labels, blended.labels)
    unknown = dataclasses.replace(targets, labels=torch.full_like(batch.labels, UNSCORED))
    found = mixup(dataclasses.replace(batch, targets=unknown), 0.5, 3, np.random.default_rng(0))
    assert found.targets is not None
    assert found.targets.values is not None
    assert (found.targets.values[:, 1] != values[:, 1]).all()
    assert torch.equal(found.targets.labels, unknown.labels)
