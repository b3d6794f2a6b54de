"""Learned mixes of layers and norms before any fusion: exact, trained, and saved with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F

from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import load_model, make_model, save_model
from pipeline.model.inputs import InputLayers, InputSettings, LayerMix, PreparedFusion, Slot
from pipeline.model.losses.classes import CrossEntropy
from pipeline.params.selection import SLOTS
from tests.support.models.small_fusions import (
    ALL,
    CLASSES,
    SMALL,
    batch_of,
    count,
    scored,
    specs_of,
)

LAYERS = 3
MIXED = {"mix_layers": True}


def stacked(kind: str) -> dict[str, StreamSpec]:
    """All slots of a kind; the real-valued ones hold three layers."""
    return {
        slot: spec
        if spec.bins is not None
        else dataclasses.replace(spec, dim=LAYERS * spec.dim, layers=LAYERS)
        for slot, spec in specs_of(kind).items()
    }


def real(specs: Mapping[str, StreamSpec]) -> list[str]:
    return [slot for slot, spec in specs.items() if spec.bins is None]


def all_on(kind: str) -> dict[str, Any]:
    """Settings with everything switched on; a slot is standardised or whitened."""
    slots = real(stacked(kind))
    return {
        "mix_layers": True,
        "layer_norm": slots,
        "standardize": slots[:1],
        "whiten": slots[1:],
    }


def made(
    kind: str, specs: Mapping[str, StreamSpec], inputs: Mapping[str, Any] | None = None
) -> FusionModel:
    torch.manual_seed(0)
    return make_model(kind, SMALL[kind], specs, CLASSES, inputs=inputs).eval()


def layer_of(batch: Batch, number: int) -> Batch:
    """One layer of the stacks, as if it alone had been extracted."""
    streams = {
        slot: Stream(x.values.chunk(LAYERS, -1)[number].contiguous(), x.mask)
        if x.values.is_floating_point()
        else x
        for slot, x in batch.streams.items()
    }
    return dataclasses.replace(batch, streams=streams)


def test_slots_are_those_of_params() -> None:
    assert get_args(Slot) == SLOTS


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("off", [None, {}, {"mix_layers": False, "layer_norm": []}])
def test_switched_off_it_is_the_fusion_alone(
    kind: str, off: dict[str, Any] | None, tmp_path: Path
) -> None:
    """To the bit, for stacks too, which are then one wide vector; and model.json as it ever was."""
    specs = stacked(kind)
    plain, model = made(kind, specs), made(kind, specs, off)
    assert type(model) is type(plain)
    states = plain.state_dict(), model.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    names = [f"class {i}" for i in range(CLASSES)]
    settings: dict[str, Any] = {"args": SMALL[kind], "specs": specs, "classes": names}
    save_model(tmp_path / "off", model, kind=kind, inputs=off, **settings)
    save_model(tmp_path / "before", plain, kind=kind, **settings)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "off" / file).read_bytes() == (tmp_path / "before" / file).read_bytes()
    assert "inputs" not in json.loads((tmp_path / "off" / "model.json").read_text())


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("number", range(LAYERS))
def test_one_hot_weights_pick_a_layer(kind: str, number: int) -> None:
    narrow, mixed = made(kind, specs_of(kind)), made(kind, stacked(kind), MIXED)
    assert isinstance(mixed, PreparedFusion)
    for module in mixed.inputs.mixes.values():
        assert isinstance(module, LayerMix)
        with torch.no_grad():
            module.weights[number] = 1e4
    batch = batch_of(stacked(kind), unit=mixed.unit)
    one = layer_of(batch, number)
    assert torch.equal(mixed(batch).logits, narrow(one).logits)
    assert torch.equal(mixed.loss(mixed(batch), batch), narrow.loss(narrow(one), one))


@pytest.mark.parametrize("kind", ALL)
def test_a_mix_costs_one_parameter_a_layer_and_one_more(kind: str) -> None:
    slots = len(real(stacked(kind)))
    alone = count(made(kind, specs_of(kind)))
    assert count(made(kind, stacked(kind), MIXED)) == alone + slots * (LAYERS + 1)
    widths = sum(spec.dim for spec in specs_of(kind).values() if spec.bins is None)
    assert count(made(kind, stacked(kind), all_on(kind))) == (
        alone + slots * (LAYERS + 1) + 2 * widths
    )


def test_a_mix_is_equation_1_of_elmo() -> None:
    """And its gradients are those of the formula."""
    torch.manual_seed(0)
    mix = LayerMix(4)
    with torch.no_grad():
        mix.weights.normal_()
        mix.scale.fill_(1.7)
    layers = torch.randn(2, 5, 4, 6)
    expected = mix.scale * torch.einsum("l,btld->btd", mix.weights.softmax(0), layers)
    found = mix(layers.flatten(2))
    assert torch.allclose(found, expected, atol=1e-6)
    pairs = [
        torch.autograd.grad(x.square().sum(), list(mix.parameters())) for x in (found, expected)
    ]
    for ours, theirs in zip(*pairs, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)
    fresh = LayerMix(4)(layers.flatten(2))
    assert torch.allclose(fresh, layers.mean(2), atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_the_fusion_begins_with_the_weights_it_would_have_alone(kind: str) -> None:
    alone, mixed = made(kind, specs_of(kind)), made(kind, stacked(kind), all_on(kind))
    assert isinstance(mixed, PreparedFusion)
    inner = mixed.fusion.state_dict()
    assert all(torch.equal(value, inner[name]) for name, value in alone.state_dict().items())


@pytest.mark.parametrize("kind", ALL)
def test_padding_stays_zero_and_is_never_seen(kind: str) -> None:
    specs = stacked(kind)
    model = made(kind, specs, all_on(kind))
    assert isinstance(model, PreparedFusion)
    with torch.no_grad():
        for norm in model.inputs.norms.values():
            assert isinstance(norm, torch.nn.LayerNorm)
            norm.bias.fill_(3.0)
    batch = batch_of(specs, unit=model.unit)
    spoiled = {
        slot: Stream(torch.where(x.mask[..., None], x.values, 9.0), x.mask)
        if x.values.ndim == 3
        else x
        for slot, x in batch.streams.items()
    }
    for slot, stream in model.inputs(spoiled).items():
        assert torch.equal(stream.mask, batch.streams[slot].mask)
        assert not stream.values[~stream.mask].any()
    with torch.inference_mode():
        logits, other = model(batch).logits, model(Batch(spoiled)).logits
        assert torch.allclose(scored(logits, batch), scored(other, batch), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = made(kind, stacked(kind), all_on(kind))
    batch = batch_of(stacked(kind), size=16, unit=model.unit)
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ALL)
def test_two_files_rebuild_it(kind: str, tmp_path: Path) -> None:
    specs, names = stacked(kind), [f"class {i}" for i in range(CLASSES)]
    model = made(kind, specs, all_on(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    save_model(
        tmp_path,
        model,
        kind=kind,
        args=SMALL[kind],
        specs=specs,
        classes=names,
        inputs=all_on(kind),
    )
    again, classes = load_model(tmp_path)
    assert classes == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    with torch.inference_mode():
        batch = batch_of(specs, unit=model.unit)
        assert torch.equal(model(batch).logits, again(batch).logits)


@pytest.mark.parametrize("kind", ALL)
def test_bf16_and_meta(kind: str) -> None:
    model = made(kind, stacked(kind), all_on(kind))
    batch = batch_of(stacked(kind), unit=model.unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model.loss(model(batch), batch))
    with torch.device("meta"):
        assert count(made(kind, stacked(kind), all_on(kind))) == count(model)


def test_the_norm_is_that_of_each_frame() -> None:
    specs = {"speech": StreamSpec(6), "text": StreamSpec(4)}
    inputs = InputLayers(specs, InputSettings(layer_norm=("speech",)))
    streams = {
        slot: Stream.pad([torch.randn(n, s.dim) for n in (3, 1)]) for slot, s in specs.items()
    }
    found = inputs(streams)
    assert found["text"] is streams["text"]
    expected = F.layer_norm(streams["speech"].values, (6,))
    mask = streams["speech"].mask
    assert torch.allclose(found["speech"].values[mask], expected[mask])


def test_a_stack_that_is_not_mixed_is_normalised_as_it_is() -> None:
    specs = {"speech": StreamSpec(6, layers=3)}
    wide = InputLayers(specs, InputSettings(layer_norm=("speech",)))
    assert wide.specs == specs
    mixed = InputLayers(specs, InputSettings(mix_layers=True, layer_norm=("speech",)))
    assert mixed.specs == {"speech": StreamSpec(2)}
    assert [tuple(p.shape) for p in mixed.norms["speech"].parameters()] == [(2,), (2,)]


def test_the_criterion_is_the_one_that_training_sets() -> None:
    kind = "lpgnet"
    alone, mixed = made(kind, specs_of(kind)), made(kind, specs_of(kind), {"layer_norm": ["text"]})
    batch = batch_of(specs_of(kind), unit=mixed.unit)
    before = mixed.loss(mixed(batch), batch)
    mixed.criterion = CrossEntropy(torch.arange(1.0, CLASSES + 1))
    alone.criterion = mixed.criterion
    assert not torch.equal(mixed.loss(mixed(batch), batch), before)
    prediction = mixed(batch)
    assert torch.equal(mixed.loss(prediction, batch), alone.loss(prediction, batch))
    assert not any("criterion" in name for name in mixed.state_dict())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"mixlayers": True}, r"inputs.mixlayers: .*expected one of .*layer_norm, mix_layers"),
        ({"mix_layers": "yes"}, "mix_layers: given 'yes'; expected true or false or a list, each"),
        ({"mix_layers": ["speach"]}, r"inputs.mix_layers: given \['speach'\].*'speech'"),
        ({"mix_layers": ["text"]}, "mix_layers: given the text slot, of which one layer.* stack"),
        ({"layer_norm": ["speach"]}, r"inputs.layer_norm: given \['speach'\].*'speech'"),
        ({"layer_norm": ["prosody"]}, "layer_norm: the prosody slot holds 16 integer bins.*real"),
        ({"standardize": ["prosody"]}, "standardize: the prosody slot holds 16 integer bins.*real"),
        ({"standardize": "text"}, "inputs.standardize: given 'text'"),
        ({"whiten": ["prosody"]}, "inputs.whiten: the prosody slot holds 16 integer bins.*real"),
        ({"whiten": ["text"], "standardize": ["text"]}, "whiten: given the text slot.*one of the"),
        ({"whiten_shrinkage": 0.0}, "inputs.whiten_shrinkage: given 0.0; expected .* 1"),
        (
            {"attentive_statistics": ["prosody"]},
            "statistics: the prosody slot holds 16 integer bins",
        ),
        ({"attention_width": 0}, "inputs.attention_width: given 0"),
    ],
)
def test_mistakes_are_named(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        made("concat", specs_of("concat"), inputs)


def test_a_stack_must_divide_into_its_layers() -> None:
    with pytest.raises(ParamsError, match="the speech slot is 7 wide with 3 layers"):
        made("concat", {"speech": StreamSpec(7, layers=3)}, MIXED)


def test_only_narrow_frames_are_whitened() -> None:
    """Of several layers, what counts is the width behind their mix."""
    wide = {"speech": StreamSpec(2048, layers=2)}
    with pytest.raises(ParamsError, match=r"2048 wide; expected at most 1024.*inputs.standardize"):
        made("concat", wide, {"whiten": ["speech"]})
    assert isinstance(made("concat", wide, {**MIXED, "whiten": ["speech"]}), PreparedFusion)


def test_slots_that_are_none_are_no_fault() -> None:
    """So that `-S models.x.speech=none` needs no other change."""
    specs = {"text": StreamSpec(12)}
    for mixed in (True, ["speech"]):
        off = {"mix_layers": mixed, "layer_norm": ["speech"], "whiten": ["speech"]}
        assert not isinstance(made("concat", specs, off), PreparedFusion)


def test_a_list_mixes_its_slots_alone() -> None:
    """Another stack stays a wide vector; all slots by name are `true`, and none is `false`."""
    specs = {"text": StreamSpec(12, layers=3), "speech": StreamSpec(10, layers=2)}

    def layers(given: Any) -> InputLayers:
        torch.manual_seed(0)
        return InputLayers(specs, InputSettings.of({"mix_layers": given}))

    one = layers(["speech"])
    assert one.changed == ["speech"]
    assert one.specs == {"text": specs["text"], "speech": StreamSpec(5)}
    assert list(layers(["text", "speech"]).state_dict()) == list(layers(True).state_dict())
    assert layers([]).changed == layers(False).changed == []


def test_files_name_what_is_switched_on_as_their_releases_did() -> None:
    of = InputSettings.of
    assert of({"mix_layers": True}).to_dict() == {"mix_layers": True, "layer_norm": []}
    assert of({"mix_layers": ["text"]}).to_dict() == {"mix_layers": ["text"], "layer_norm": []}
    assert of({"mix_layers": []}).to_dict() == {}
    assert of({"standardize": ["text"]}).to_dict() == {
        "mix_layers": False,
        "layer_norm": [],
        "standardize": ["text"],
    }
    pooled = {"mix_layers": False, "layer_norm": [], "attentive_statistics": ["text"]}
    assert of(pooled).to_dict() == pooled
    whitened = {"mix_layers": False, "layer_norm": [], "whiten": ["text"]}
    assert of(whitened).to_dict() == whitened
    narrow = {**pooled, "attention_width": None}
    assert of(narrow).to_dict() == narrow
