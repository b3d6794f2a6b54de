"""Contract of the fusion models: blind to padding and batch-mates, complete, and able to learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from features.arguments import parameter_types
from features.errors import ParamsError
from features.process.devices import entered, full_float32
from features.settings.plugins import load
from features.stream import Stream
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import FUSIONS, load_model, make_model, save_model
from tests.support.models.number_ranges import ends
from tests.support.models.small_fusions import (
    ALL,
    CLASSES,
    SMALL,
    batch_of,
    scored,
    small,
    specs_of,
)


def alone(batch: Batch, row: int) -> Batch:
    """One utterance or dialogue, without padding."""
    streams = {slot: Stream.pad([s.unpad()[row]]) for slot, s in batch.streams.items()}
    assert batch.labels is not None
    labels = batch.labels[[row]]
    return Batch(streams, labels if labels.ndim == 1 else labels[labels >= 0][None])


def take(batch: Batch, rows: list[int]) -> Batch:
    streams = {s: Stream(x.values[rows], x.mask[rows]) for s, x in batch.streams.items()}
    assert batch.labels is not None
    return Batch(streams, batch.labels[rows], tuple(batch.ids[row] for row in rows))


@pytest.mark.parametrize("kind", ALL)
def test_padding_and_batch_mates_change_nothing(kind: str) -> None:
    specs = specs_of(kind)
    model = small(kind)
    batch = batch_of(specs, unit=model.unit)
    singles = [alone(batch, row) for row in range(len(batch.ids))]
    with torch.inference_mode():
        together = scored(model(batch).logits, batch)
        apart = torch.cat([scored(model(single).logits, single) for single in singles])
        assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_values_under_the_mask_are_never_seen(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), unit=model.unit)
    spoiled = {}
    for slot, stream in batch.streams.items():
        mask = stream.mask if stream.values.ndim == 2 else stream.mask[..., None]
        spoiled[slot] = Stream(torch.where(mask, stream.values, 3), stream.mask)
    with torch.inference_mode():
        logits, other = model(batch).logits, model(Batch(spoiled)).logits
        assert torch.allclose(scored(logits, batch), scored(other, batch), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_permuting_a_batch_permutes_the_output(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), unit=model.unit)
    with torch.inference_mode():
        expected = model(batch).logits[[2, 0, 3, 1]]
        assert torch.allclose(model(take(batch, [2, 0, 3, 1])).logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), size=16, unit=model.unit)
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert dead == []


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ALL)
def test_gradients_of_a_gpu_are_those_of_the_cpu(kind: str) -> None:
    """On the last one: the first is what a mistake would take."""
    device = f"cuda:{torch.cuda.device_count() - 1}"
    found = {}
    for place in ("cpu", device):
        model = small(kind).to(place)
        batch = batch_of(specs_of(kind), unit=model.unit).to(place)
        with entered(place), full_float32():
            loss = model.loss(model(batch), batch)
            loss.backward()  # type: ignore[no-untyped-call]
        assert loss.device == torch.device(place)
        named = model.named_parameters()
        found[place] = {name: p.grad.cpu() for name, p in named if p.grad is not None}
    assert found[device].keys() == found["cpu"].keys()
    largest = max(float(gradient.abs().max()) for gradient in found["cpu"].values())
    for name, wanted in found["cpu"].items():
        assert torch.allclose(found[device][name], wanted, rtol=1e-3, atol=1e-5 * largest), name


@pytest.mark.parametrize("kind", ALL)
def test_any_slot_may_be_empty(kind: str) -> None:
    specs = specs_of(kind)
    for slot in specs:
        rest = {name: spec for name, spec in specs.items() if name != slot}
        for used in (rest, {slot: specs[slot]}):
            model = small(kind, used)
            batch = batch_of(used, unit=model.unit)
            logits = model(batch).logits
            assert batch.labels is not None
            assert logits.shape == (*batch.labels.shape, CLASSES)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("kind", ALL)
def test_no_slot_at_all_is_an_error(kind: str) -> None:
    with pytest.raises(ParamsError, match="no slot filled"):
        make_model(kind, SMALL[kind], {}, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_learns_a_separable_problem(kind: str) -> None:
    specs = specs_of(kind)
    has_dropout = "dropout" in parameter_types(load(FUSIONS, kind))
    model = small(kind, dropout=0.0) if has_dropout else small(kind)
    # About as many labels either way.
    batch = batch_of(specs, size=8 if model.unit == "dialogue" else 32, unit=model.unit)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    assert batch.labels is not None
    truth, found = batch.labels[batch.labels >= 0].tolist(), list[int]()
    for _ in range(1500):  # a linear model takes that long, any other one a tenth of it
        optimizer.zero_grad()
        prediction = model(batch)
        found = scored(prediction.logits, batch).argmax(1).tolist()
        if found == truth:
            break
        model.loss(prediction, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert found == truth


@pytest.mark.parametrize("kind", ALL)
def test_bf16_autocast_is_finite(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), unit=model.unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model.loss(model(batch), batch))


@pytest.mark.parametrize("kind", ALL)
def test_saved_model_is_rebuilt_from_its_two_files(kind: str, tmp_path: Path) -> None:
    specs = specs_of(kind)
    model = small(kind)
    names = [f"class {i}" for i in range(CLASSES)]
    save_model(tmp_path, model, kind=kind, args=SMALL[kind], specs=specs, classes=names)
    again, classes = load_model(tmp_path)
    assert classes == names
    with torch.inference_mode():
        batch = batch_of(specs, unit=model.unit)
        assert torch.equal(model(batch).logits, again(batch).logits)


def test_a_model_is_loaded_without_a_look_at_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = specs_of("concat")
    model, args = small("concat"), SMALL["concat"]
    save_model(tmp_path, model, kind="concat", args=args, specs=specs, classes=[*"abcd"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("begins to use a GPU"))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert load_model(tmp_path)


@pytest.mark.parametrize("kind", ALL)
def test_both_ends_of_each_range_train_or_are_refused(kind: str) -> None:
    """Wide models are made, but not filled with weights."""
    specs, loads = specs_of(kind), load(FUSIONS, kind)
    alone = {"heads": 1, "encoder_heads": 1}
    made = 0
    for (setting, value), more in itertools.product(ends(loads), ({}, alone)):
        args = {**SMALL[kind], **{k: v for k, v in more.items() if k in SMALL[kind]}}
        args[setting] = value
        try:
            with torch.device("meta"):
                make_model(kind, args, specs, CLASSES)
        except ParamsError:
            continue
        made += 1
        if value <= 1000:
            model = make_model(kind, args, specs, CLASSES).train()
            batch = batch_of(specs, unit=model.unit)
            loss = model.loss(model(batch), batch)
            loss.backward()  # type: ignore[no-untyped-call]
            assert loss.isfinite(), (setting, value)
    assert made >= len(dict(ends(loads)))
