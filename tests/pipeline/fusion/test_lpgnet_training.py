"""LPGNet trains on dialogues of any size, and on the frames of single utterances."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from features.stream import Stream
from pipeline.fusion.lpgnet import MultimodalGate
from pipeline.model.batch import Batch
from tests.support.models.small_lpgnet import CLASSES, SPECS, close, dialogues, randomised, small


def frames(text: list[int], speech: list[int]) -> Batch:
    """Utterances with as many tokens and frames as said."""
    torch.manual_seed(3)
    lengths = {"text": text, "speech": speech}
    streams = {
        slot: Stream.pad([torch.randn(n, spec.dim) for n in lengths[slot]])
        for slot, spec in SPECS.items()
    }
    return Batch(streams, torch.arange(len(text)) % CLASSES)


@pytest.mark.parametrize("lengths", [(4,), (1,)])
@pytest.mark.parametrize("kind", ["pooled", "sequence"])
def test_batchnorm_is_safe_for_a_single_dialogue(kind: str, lengths: tuple[int, ...]) -> None:
    model, batch = randomised(small(global_context=kind)), dialogues(*lengths)
    expected = model(batch).logits
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    logits = model(batch).logits
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())
    one_row = kind == "pooled" or lengths == (1,)
    assert close(logits, expected) is one_row
    moved = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert bool(moved) is not one_row
    assert all("norm.running" in k or "num_batches" in k for k in moved)


@pytest.mark.parametrize("kind", ["pooled", "sequence"])
def test_batchnorm_of_several_dialogues_counts_no_padding(kind: str) -> None:
    """More padding changes neither the output nor the running statistics."""
    batch = dialogues(4, 2, 3)
    longer = Batch(
        {
            slot: Stream(F.pad(x.values, (0, 0, 0, 5)), F.pad(x.mask, (0, 5)))
            for slot, x in batch.streams.items()
        }
    )
    models = [small(global_context=kind).train() for _ in range(2)]
    assert close(models[0](batch).logits, models[1](longer).logits[:, :4])
    states = [model.state_dict() for model in models]
    assert all(close(value, states[1][name]) for name, value in states[0].items())
    fresh = small(global_context=kind).state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in states[0].items())


def test_gradients_at_padding_are_zero_and_finite() -> None:
    """Even where the padding itself is not a number."""
    batch, model = dialogues(5, 1, 2), small().train()
    for stream in batch.streams.values():
        stream.values[~stream.mask] = math.nan
        stream.values.requires_grad_()
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    for stream in batch.streams.values():
        assert stream.values.grad is not None
        assert torch.isfinite(stream.values.grad).all()
        assert not stream.values.grad[~stream.mask].any()
        assert stream.values.grad[stream.mask].any(1).all()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("kind", ["pooled", "sequence"])
def test_bf16_trains(kind: str) -> None:
    batch, model = dialogues(5, 1, 2), small(global_context=kind, qkv_proj=True).train()
    expected = model.loss(model(batch), batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(model(batch), batch)
    found.backward()  # type: ignore[no-untyped-call]
    assert close(found.detach().float(), expected.detach(), 0.1)


@pytest.mark.slow
def test_emotions_that_another_turn_gives_away_are_learned() -> None:
    """One turn of each dialogue tells the emotion of all: only context brings it to the rest."""
    torch.manual_seed(0)
    values, labels = 0.3 * torch.randn(48, 6, 12), torch.arange(48) % CLASSES
    values[torch.arange(48), torch.randint(0, 6, (48,)), labels] += 6
    mask = torch.ones(48, 6, dtype=torch.bool)
    streams = {"text": Stream(values, mask), "speech": Stream(0.3 * torch.randn(48, 6, 10), mask)}
    model = small(d_model=32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rows = {s: Stream(x.values[:32], mask[:32]) for s, x in streams.items()}
    known = Batch(rows, labels[:32, None].expand(32, 6))
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(model(known), known).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    unseen = Batch({s: Stream(x.values[32:], mask[32:]) for s, x in streams.items()})
    right = model.eval()(unseen).logits.argmax(-1) == labels[32:, None]
    assert float(right.float().mean()) > 0.9


def test_frame_level_classifies_utterances() -> None:
    model, batch = small(level="frame"), frames([3, 1, 6], [9, 4, 2])
    assert (small().unit, model.unit) == ("dialogue", "utterance")
    prediction = model(batch)
    assert prediction.logits.shape == (3, CLASSES)
    assert {x.shape for x in prediction.extras.values()} == {(3, CLASSES)}
    assert torch.isfinite(model.loss(prediction, batch))


def test_frame_level_takes_blended_labels() -> None:
    """Shares of classes, as mixup makes them; hard ones give the same loss."""
    model, batch = small(level="frame"), frames([3, 1, 6], [9, 4, 2])
    assert batch.labels is not None
    hard = dataclasses.replace(batch, labels=F.one_hot(batch.labels, CLASSES).float())
    soft = dataclasses.replace(batch, labels=torch.full((3, CLASSES), 1 / CLASSES))
    prediction = model(batch)
    assert close(model.loss(prediction, hard), model.loss(prediction, batch))
    assert not close(model.loss(prediction, soft), model.loss(prediction, batch), 1e-3)


def test_frame_level_of_one_frame_is_a_dialogue_of_one_turn() -> None:
    by_frame, by_turn, batch = small(level="frame"), small(), dialogues(1, 1, 1)
    by_frame.load_state_dict(by_turn.state_dict())
    assert close(by_frame(batch).logits, by_turn(batch).logits[:, 0])


@pytest.mark.parametrize("kind", ["pooled", "sequence"])
def test_frame_level_sees_neither_padding_nor_batch_mates(kind: str) -> None:
    model = randomised(small(level="frame", global_context=kind, positional="sinusoidal"))
    batch = frames([3, 1, 6], [9, 4, 2])
    together = model(batch).logits
    for row in range(3):
        streams = {s: Stream.pad([x.unpad()[row]]) for s, x in batch.streams.items()}
        assert close(model(Batch(streams)).logits[0], together[row])


def test_frames_after_the_first_512_are_not_seen() -> None:
    model, batch = small(level="frame"), frames([4, 600], [700, 513])
    cut = {s: Stream(x.values[:, :512], x.mask[:, :512]) for s, x in batch.streams.items()}
    assert close(model(batch).logits, model(Batch(cut)).logits)
    shorter = small(level="frame", frames_max=100)
    assert not close(shorter(batch).logits, model(batch).logits, 1e-4)


def test_frames_without_a_token_are_the_audios_alone() -> None:
    """Where the text has ended the gate gives all weight to the audio."""
    torch.manual_seed(0)
    text = Stream(torch.randn(1, 2, 16), torch.tensor([[True, False]]))
    audio = Stream(torch.randn(1, 4, 16), torch.tensor([[True, True, True, False]]))
    fused = MultimodalGate(16)([text, audio])
    assert fused.mask.tolist() == [[True, True, True, False]]
    assert close(fused.values[:, 1:3], audio.values[:, 1:3])
    assert not close(fused.values[:, 0], audio.values[:, 0], 1e-3)
