"""Attentive statistics pooling: the formulas of its two papers, and a front of any fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray

from features.arguments import parameter_types
from features.errors import ParamsError
from features.settings.plugins import load
from features.stream import Stream, StreamSpec
from pipeline.model.attentive_statistics import AttentiveStatistics
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import FUSIONS, load_model, make_model, save_model
from pipeline.model.inputs import PreparedFusion
from tests.support.models.small_fusions import ALL, CLASSES, SMALL, batch_of, specs_of

WIDTH, HIDDEN = 3, 4
both = pytest.mark.parametrize("by_channel", [False, True])
every = pytest.mark.parametrize("kind", ALL)


def layer(*, by_channel: bool) -> AttentiveStatistics:
    torch.manual_seed(0)
    return AttentiveStatistics(WIDTH, HIDDEN, by_channel=by_channel).double()


def expected(pool: AttentiveStatistics, frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of one utterance `[T, D]`: the formulas, with the statistics beside each frame."""
    w, b = pool.frame.weight.detach().numpy(), pool.frame.bias.detach().numpy()
    v = pool.score.weight.detach().numpy()
    seen = frames
    if pool.context is not None:
        w = np.concatenate([w, pool.context.weight.detach().numpy()], axis=1)
        context = np.concatenate([frames.mean(0), frames.std(0)])
        seen = np.concatenate([frames, np.tile(context, (len(frames), 1))], axis=1)
    scores = np.stack([v @ np.tanh(w @ h + b) for h in seen])
    shares = np.exp(scores) / np.exp(scores).sum(0)
    mean = (shares * frames).sum(0)
    return np.concatenate([mean, np.sqrt((shares * (frames - mean) ** 2).sum(0))])


@both
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_batch_holds_what_the_papers_say_of_each(by_channel: bool, lengths: list[int]) -> None:
    pool = layer(by_channel=by_channel)
    frames = [torch.randn(length, WIDTH, dtype=torch.float64) for length in lengths]
    with torch.inference_mode():
        stream = pool(Stream.pad(frames))
    assert stream.mask.tolist() == [[True]] * len(lengths)
    for found, own in zip(stream.values[:, 0], frames, strict=True):
        assert np.allclose(found, expected(pool, own.numpy()), atol=1e-9)


@both
def test_equal_scores_are_plain_statistics(by_channel: bool) -> None:
    pool = layer(by_channel=by_channel)
    torch.nn.init.zeros_(pool.score.weight)
    stream = Stream.pad([torch.randn(n, WIDTH, dtype=torch.float64) for n in (5, 1, 3)])
    plain = torch.cat([stream.mean(), stream.std()], dim=-1)
    assert torch.allclose(pool(stream).values[:, 0], plain)


@both
def test_gradients_are_finite_where_nothing_deviates_or_exists(by_channel: bool) -> None:
    """Of one frame, of equal ones, and of none, whose vector is zeros."""
    pool = layer(by_channel=by_channel)
    frames = [torch.ones(n, WIDTH, dtype=torch.float64) for n in (1, 4, 0)]
    stream = Stream.pad([*frames, torch.randn(4, WIDTH, dtype=torch.float64)])
    values = stream.values.requires_grad_()
    found = pool(Stream(values, stream.mask))
    assert found.mask.tolist() == [[True], [True], [False], [True]]
    assert not found.values[2].any()
    for gradient in torch.autograd.grad(found.values.sum(), [values, *pool.parameters()]):
        assert gradient.isfinite().all()
        assert gradient.any()


def args_of(kind: str) -> dict[str, Any]:
    """Arguments of a small model over utterances, without dropout."""
    of_utterances = {"dropout": 0.0, "level": "frame"}
    known = parameter_types(load(FUSIONS, kind))
    return SMALL[kind] | {name: value for name, value in of_utterances.items() if name in known}


def inputs_of(kind: str, *, by_channel: bool = False) -> dict[str, Any]:
    """Pools in all slots that hold frames."""
    slots = [slot for slot, spec in specs_of(kind).items() if spec.bins is None]
    return {
        "attentive_statistics": slots,
        "attention_width": HIDDEN,
        "attention_by_channel": by_channel,
    }


def model_of(kind: str, *, by_channel: bool = False) -> PreparedFusion:
    torch.manual_seed(0)
    inputs = inputs_of(kind, by_channel=by_channel)
    model = make_model(kind, args_of(kind), specs_of(kind), CLASSES, inputs=inputs)
    assert isinstance(model, PreparedFusion)
    return model.eval()


def logits(model: FusionModel, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(batch).logits
    return found


@both
@every
def test_a_fusion_gets_one_vector_and_sees_no_padding(kind: str, by_channel: bool) -> None:
    """Each utterance alone gives what it gives in a batch, whatever the padding holds."""
    model, batch = model_of(kind, by_channel=by_channel), batch_of(specs_of(kind))
    slots = inputs_of(kind)["attentive_statistics"]
    together = logits(model, batch)
    streams = model.inputs(batch.streams)
    for slot, stream in streams.items():
        pooled = slot in slots
        shape = (4, 1, 2 * specs_of(kind)[slot].dim)
        assert stream.values.shape == (shape if pooled else batch.streams[slot].values.shape)
        assert model.inputs.specs[slot] == (
            StreamSpec(shape[2]) if pooled else specs_of(kind)[slot]
        )
    spoiled = {
        slot: Stream(torch.where(x.mask[..., None], x.values, 9.0), x.mask) if slot in slots else x
        for slot, x in batch.streams.items()
    }
    assert torch.allclose(logits(model, Batch(spoiled)), together, atol=1e-5)
    for row in range(4):
        alone = {slot: Stream.pad([x.unpad()[row]]) for slot, x in batch.streams.items()}
        assert torch.allclose(logits(model, Batch(alone))[0], together[row], atol=1e-5)


@both
@every
def test_it_trains_with_the_fusion_and_is_saved_with_it(
    kind: str, by_channel: bool, tmp_path: Path
) -> None:
    model, batch = model_of(kind, by_channel=by_channel), batch_of(specs_of(kind), size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(model(batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        for name, parameter in model.inputs.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    names = [f"class {i}" for i in range(CLASSES)]
    save_model(
        tmp_path,
        model,
        kind=kind,
        args=args_of(kind),
        specs=specs_of(kind),
        classes=names,
        inputs=inputs_of(kind, by_channel=by_channel),
    )
    again, _ = load_model(tmp_path)
    assert torch.equal(logits(again, batch), logits(model, batch))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model.loss(model(batch), batch))


def test_of_a_stack_the_mix_is_pooled() -> None:
    specs = {"speech": StreamSpec(6, hop_seconds=0.02, layers=3)}
    for mixed, width in ((True, 2), (False, 6)):
        inputs = {"mix_layers": mixed, "attentive_statistics": ["speech"], "attention_width": None}
        model = make_model("concat", SMALL["concat"], specs, CLASSES, inputs=inputs)
        assert isinstance(model, PreparedFusion)
        assert model.inputs.specs == {"speech": StreamSpec(2 * width)}
        pool = model.inputs.pools["speech"]
        assert isinstance(pool, AttentiveStatistics)
        assert pool.frame.weight.shape == (width, width)


def test_a_model_over_dialogues_takes_no_pool() -> None:
    specs = specs_of("lpgnet")
    with pytest.raises(ParamsError, match=r"given \['text'\] for a model over dialogues.*mean_std"):
        make_model(
            "lpgnet", SMALL["lpgnet"], specs, CLASSES, inputs={"attentive_statistics": ["text"]}
        )


def test_frames_behind_a_pool_are_all_used() -> None:
    args = {**args_of("lpgnet"), "frames_max": 2}
    specs = specs_of("lpgnet")
    model = make_model("lpgnet", args, specs, CLASSES, inputs={"attentive_statistics": ["text"]})
    assert {slot: model.frames_used(slot) for slot in ("text", "speech")} == {
        "text": None,
        "speech": 2,
    }
