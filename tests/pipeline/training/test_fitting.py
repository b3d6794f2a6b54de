"""A batch in parts gives the gradient of the whole, and only what cannot be cut is an error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from features.backbone.base import Inputs
from features.stream import Stream
from pipeline.data.targets import TargetReader
from pipeline.e2e.source import LiveExamples
from pipeline.model.batch import UNSCORED, Batch
from pipeline.model.outputs import Outputs
from pipeline.params.training import TrainParams
from pipeline.training.fitting import (
    Fitting,
    NotFiniteError,
    TooLargeError,
    between,
    padded_shape,
    rows,
)
from pipeline.training.loop import Step, begin, train_epoch
from pipeline.training.predict import evaluate
from pipeline.training.state import Training
from tests.conftest import ManifestMaker
from tests.support.models.small_live import entry_of, live_of, tuned_model, without_dropout

SECONDS = [0.3, 0.9, 0.5, 0.31, 0.7, 0.4, 0.6]


@pytest.fixture
def live(tmp_path: Path, make_manifest: ManifestMaker) -> LiveExamples:
    entries = {"text": entry_of("bert", tmp_path), "speech": entry_of("hubert_group", tmp_path)}
    backbones = {slot: entry.build() for slot, entry in entries.items()}
    return live_of(make_manifest(SECONDS), backbones, batch_size=7)


def training_of(live: LiveExamples, **train: Any) -> Training:
    model = tuned_model(live)
    without_dropout(model)
    return begin(model, live, live.labels, TrainParams(**train), seed=0)


def no_room(_: Tensor | None = None) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has none")


def fails_above(training: Training, most: int, *, backwards: bool = False) -> list[int]:
    """From now on more utterances than `most` do not fit; returns what is tried."""
    tried: list[int] = []
    model: Any = training.model
    stream = model._stream

    def limited(slot: str, batch: Batch) -> Stream:
        if slot == "text":
            tried.append(rows(batch))
        if rows(batch) > most and not backwards:
            no_room()
        found: Stream = stream(slot, batch)
        if rows(batch) > most and slot == "speech" and found.values.requires_grad:
            values: Any = found.values
            values.register_hook(no_room)  # the fusion has its gradients by then
        return found

    model._stream = limited
    return tried


def gradients(training: Training, batches: list[Batch]) -> dict[str, Tensor]:
    """Of one step's batches, not yet divided."""
    step = Step(training, 1.0)
    for batch in batches:
        step.add(batch)
    named = training.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_gradients_of_parts_are_that_of_the_whole(
    live: LiveExamples, most: int, backwards: bool
) -> None:
    """Also where the batch before it was done, and where part of the gradient was there already."""
    batches = [live.batch(live.labels[:2]), live.batch(live.labels)]
    whole = gradients(training_of(live, loss="weighted_focal"), batches)
    training = training_of(live, loss="weighted_focal")
    fails_above(training, most, backwards=backwards)
    parts = gradients(training, batches)
    assert parts.keys() == whole.keys()
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for name, gradient in whole.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-4, atol=1e-6 * largest), name


def test_steps_stay_and_later_batches_are_cut_beforehand(live: LiveExamples) -> None:
    params = TrainParams(batch_size=7, accumulate=1)
    training, said = training_of(live), list[str]()
    training.fitting.report = said.append
    whole = evaluate(training.model, live, live.labels).loss
    tried = fails_above(training, 3)
    loss = train_epoch(training, live, live.labels, params)
    # 7 failed twice; 4 did after 3, so all of the step again.
    assert tried == [7, 7, 3, 4, 3, 4, 3, 2, 2]
    tried.clear()
    train_epoch(training, live, live.labels, params)
    assert tried == [3, 2, 2]
    assert training.schedule.step == 2
    assert len(said) == 1
    assert "a batch of 7 utterances does not fit" in said[0]
    assert "Tried to allocate 2 GiB" not in said[0]
    assert loss == pytest.approx(whole, rel=1e-5)


def test_evaluation_is_cut_as_well(live: LiveExamples) -> None:
    training = training_of(live)
    whole = evaluate(training.model, live, live.labels)
    fails_above(training, 2)
    parts = evaluate(training.model, live, live.labels)
    assert parts.probabilities == pytest.approx(whole.probabilities, abs=1e-6)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_a_loss_that_is_no_mean_over_rows_is_not_cut(live: LiveExamples) -> None:
    """Parts would have another loss: the message names it, and what to set."""
    outputs = Outputs((), ("arousal",), (), {"arousal": (0.0, 9.0)})
    rated = [
        dataclasses.replace(label, values={"arousal": float(number)})
        for number, label in enumerate(live.labels)
    ]
    reader = TargetReader(("attributes",), outputs)
    cached = dataclasses.replace(live.cached, labels=rated, targets=reader)
    live = dataclasses.replace(live, cached=cached, batch_size=8)
    settings: dict[str, Any] = {"targets": ("attributes",), "monitor": "ccc", "batch_size": 8}
    training = training_of(live, **settings)
    fails_above(training, 3)
    said = r"batch of 7 .* must not be cut: `attribute_loss: ccc` .*smaller `batch_size`"
    with pytest.raises(TooLargeError, match=said):
        train_epoch(training, live, live.labels, TrainParams(**settings))
    # It may be cut where it is not trained by, and by a loss that is a mean.
    assert math.isfinite(evaluate(training.model, live, live.labels).loss)
    settings |= {"attribute_loss": "mse"}
    training = training_of(live, **settings)
    expected = evaluate(training.model, live, live.labels).loss
    fails_above(training, 3)
    found = train_epoch(training, live, live.labels, TrainParams(**settings))
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_single_utterance_that_does_not_fit_is_named(live: LiveExamples) -> None:
    training = training_of(live)
    fails_above(training, 0)
    with pytest.raises(TooLargeError, match=r"the utterances \['u\d'\] alone do not fit .*cut it"):
        train_epoch(training, live, live.labels, TrainParams(batch_size=7))


def test_an_optimiser_whose_state_does_not_fit_is_no_matter_of_batches(
    live: LiveExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of(live)
    monkeypatch.setattr(training.optimizer, "step", no_room)
    said = r"state of the optimiser do not fit the memory of the device \(CUDA out of memory\)"
    with pytest.raises(TooLargeError, match=said):
        train_epoch(training, live, live.labels, TrainParams(batch_size=7))


def dialogues() -> Batch:
    """Three of them with 2, 3 and 1 turns; every number is one of its own."""
    labels = torch.tensor([[0, 1, UNSCORED], [1, 1, 0], [0, UNSCORED, UNSCORED]])
    values = torch.arange(3 * 3 * 2.0).reshape(3, 3, 2)
    ids = tuple("abcdef")
    inputs = {"text": Inputs(ids, {"ids": torch.arange(12).reshape(6, 2)})}
    return Batch({"prosody": Stream(values, labels != UNSCORED)}, labels, ids, inputs)


def test_dialogues_are_cut_between_dialogues() -> None:
    batch = dialogues()
    for middle in (1, 2):
        parts = between(batch, 0, middle), between(batch, middle, 3)
        assert parts[0].ids == batch.ids[: {1: 2, 2: 5}[middle]]
        assert parts[0].ids + parts[1].ids == batch.ids
        for part in parts:
            assert part.labels is not None
            assert int((part.labels != UNSCORED).sum()) == len(part.ids)
            assert part.inputs["text"].ids == part.ids
        joined = torch.cat([part.inputs["text"].tensors["ids"] for part in parts])
        assert torch.equal(joined, batch.inputs["text"].tensors["ids"])
        joined = torch.cat([part.streams["prosody"].values for part in parts])
        assert torch.equal(joined, batch.streams["prosody"].values)
        for part in parts:
            own, whole = padded_shape(part), padded_shape(batch)
            assert own == (len(part.ids), 2, rows(part), 3, 2)
            assert whole == (6, 2, 3, 3, 2)


def test_nothing_is_cut_below_the_limit() -> None:
    batch = dialogues()
    ids, width, *stream = padded_shape(batch)
    counts = {
        limit: [rows(part) for part in Fitting([limit]).halver.parts(batch)]
        for limit in ((ids + 1, width, *stream), (ids, width, *stream), (1,) * 5, (1,) * 4)
    }
    assert list(counts.values()) == [[3], [1, 2], [1, 1, 1], [3]]
    assert [rows(part) for part in Fitting().halver.parts(batch)] == [3]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    room=st.integers(1, 12),
    gradients=st.integers(0, 6),
)
@example(sizes=[4], room=3, gradients=1)  # halves of one shape, of which only the first fits
def test_a_step_ends_although_its_first_part_leaves_less_room(
    sizes: list[int], room: int, gradients: int
) -> None:
    """Gradients lie beside all parts but the first, until the step is undone."""
    batches = [
        Batch({"speech": Stream(torch.zeros(size, 5, 2), torch.ones(size, 5))}, torch.arange(size))
        for size in sizes
    ]
    fitting, taken, tried = Fitting(report=lambda _: None), 0, 0

    def compute(part: Batch) -> int:
        nonlocal taken, tried
        tried += 1
        assert tried < 500, "the step does not end"
        if rows(part) + taken > room:
            no_room()
        taken = gradients
        return rows(part)

    def step() -> list[int]:
        nonlocal taken
        while (found := fitting.attempt(batches, compute)) is None:
            taken = 0
        return found

    try:
        assert sum(step()) == sum(sizes)
    except TooLargeError:
        assert 1 + gradients > room  # a single row


Spoil = Callable[[Training], None]


def spoil_the_loss(training: Training) -> None:
    loss = training.model.loss
    training.model.loss = lambda *given: loss(*given) * torch.inf  # type: ignore[method-assign]


def spoil_a_gradient(training: Training) -> None:
    parameter: Any = next(training.model.parameters())
    parameter.register_hook(lambda gradient: gradient * torch.nan)


@pytest.mark.parametrize("spoil", [spoil_the_loss, spoil_a_gradient])
def test_what_is_not_finite_ends_before_it_reaches_the_weights(
    live: LiveExamples, spoil: Spoil
) -> None:
    training = training_of(live)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    spoil(training)
    named = r"is (inf|nan) on a batch with utterances \['u\d', 'u\d', 'u\d'\]"
    with pytest.raises(NotFiniteError, match=named):
        train_epoch(training, live, live.labels, TrainParams(batch_size=3))
    for name, value in training.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_steps_that_the_scaler_leaves_out_are_no_error_until_none_is_made(
    live: LiveExamples,
) -> None:
    """Two overflows halve the scale twice; an overflow at any scale ends the training."""
    training = training_of(live)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    training.scaler, params = scaler, TrainParams(batch_size=3)
    left = [2]

    def overflow(gradient: Tensor) -> Tensor:
        left[0] -= 1
        return gradient * torch.inf if left[0] >= 0 else gradient

    parameter: Any = next(training.model.parameters())
    parameter.register_hook(overflow)
    train_epoch(training, live, live.labels, params)
    assert scaler.get_scale() == 1.0
    assert all(bool(value.isfinite().all()) for value in training.model.parameters())
    left[0] = 1000
    many = TrainParams(batch_size=1, accumulate=1)
    train_epoch(training, live, live.labels, many)
    with pytest.raises(NotFiniteError, match="gradient's norm is"):
        train_epoch(training, live, [*live.labels, *live.labels], many)


@pytest.mark.parametrize("most", [7, 3])
def test_what_was_tried_leaves_no_trace(live: LiveExamples, most: int) -> None:
    """Dropout and weights are those of a training that knew beforehand, or never ran out."""
    params = TrainParams(batch_size=7, epochs=1)
    model, four = tuned_model(live), padded_shape(between(live.batch(live.labels), 0, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for known in (True, False):
        model.load_state_dict(before)
        training = begin(model, live, live.labels, params, seed=0)
        if known:
            training.fitting = Fitting([four] if most == 3 else [])
        elif most == 3:
            fails_above(training, most)
        else:
            once(training)
        torch.manual_seed(5)
        loss = train_epoch(training, live, live.labels, params)
        found.append((loss, {name: value.clone() for name, value in model.state_dict().items()}))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]), name


def once(training: Training) -> None:
    """The first backward pass runs out of memory, and the others do not."""
    left = [True]

    def fail_once(gradient: Tensor) -> Tensor:
        return no_room() if left and left.pop() else gradient

    parameter: Any = next(training.model.parameters())
    parameter.register_hook(fail_once)


def test_an_error_of_another_kind_is_raised(live: LiveExamples) -> None:
    batch = live.batch(live.labels)
    with pytest.raises(RuntimeError, match="shapes differ"):
        Fitting().attempt([batch], Mock(side_effect=RuntimeError("shapes differ")))
