"""LPGNet: its forward pass equals the equations, and every switch changes what it names."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.fusion.lpgnet import LPGNet, MultimodalGate, sinusoids
from pipeline.model.batch import Batch
from tests.support.models.small_lpgnet import SPECS, close, count, dialogues, randomised, small


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"ffn_mult": 1}, 13_592_076),
        ({}, 18_313_740),
        ({"ffn_mult": 4}, 27_757_068),
        ({"qkv_proj": True}, 18_313_740 + 7_087_104),
        ({"heads": 8}, 18_313_740),
    ],
)
def test_parameter_counts(args: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = LPGNet({slot: StreamSpec(768) for slot in SPECS}, 4, **args)
    assert count(model) == expected
    assert count(model) - count(model.students) == expected - 6_152


def by_hand(model: LPGNet, batch: Batch, row: int) -> dict[str, Tensor]:
    """Equations 1-18 for one dialogue, letter by letter and turn by turn."""
    modules = dict(model.named_modules())

    def linear(name: str, x: Tensor) -> Tensor:
        layer = modules[name]
        assert isinstance(layer, nn.Linear)
        return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)

    length = int(batch.streams["text"].mask[row].sum())
    hidden = {
        s: linear(f"projections.{s}", x.values[row, :length]) for s, x in batch.streams.items()
    }
    refined = {}
    for slot, other in (("text", "speech"), ("speech", "text")):
        gated = []
        for source in (slot, other):
            q, kv, path = hidden[slot], hidden[source], f"paths.{source}_{slot}"
            o = torch.stack([(kv @ turn / 16**0.5).softmax(0) @ kv for turn in q])
            norm: Any = modules[f"{path}.context.norm"]
            pooled = linear(f"{path}.context.convolution", o.mean(0))
            scaled = (pooled - norm.running_mean) / (norm.running_var + norm.eps) ** 0.5
            g = F.leaky_relu(scaled * norm.weight + norm.bias, 0.01)
            inner = F.gelu(linear(f"{path}.feed_forward.0", o))
            h = q + g + linear(f"{path}.feed_forward.3", inner)
            gated.append(h * torch.sigmoid(linear(f"{path}.gate.linear", h)))
        refined[slot] = linear(f"mergers.{slot}", torch.cat(gated, 1))
    weights = {s: linear("mixer.linear", r).exp() for s, r in refined.items()}
    whole = weights["text"] + weights["speech"]
    fused = sum(weights[s] / whole * refined[s] for s in refined)
    assert isinstance(fused, Tensor)
    heads = {s: linear(f"students.{s}.2", r.clamp(min=0)) for s, r in refined.items()}
    return {"main": linear("classifier", fused), **heads}


def test_forward_is_the_equations() -> None:
    model, batch = randomised(small()), dialogues(5, 1, 7)
    with torch.inference_mode():
        prediction = model(batch)
        for row, length in enumerate((5, 1, 7)):
            expected = by_hand(model, batch, row)
            assert close(prediction.logits[row, :length], expected["main"])
            for slot in SPECS:
                assert close(prediction.extras[slot][row, :length], expected[slot])


@pytest.mark.parametrize(
    "args",
    [
        {"inter": False},
        {"intra": False},
        {"ffn": False},
        {"unimodal_gate": False},
        {"multimodal_gate": False},
        {"unimodal_gate": False, "multimodal_gate": False},
        {"qkv_proj": True},
        {"heads": 2},
        {"ffn_mult": 4},
        {"global_context": "sequence"},
        {"positional": "sinusoidal"},
        {"level": "frame"},
    ],
    ids=str,
)
def test_every_switch_changes_the_output_and_still_trains(args: dict[str, Any]) -> None:
    batch, default, model = dialogues(5, 3), small(), small(**args)
    if model.unit == "utterance":
        assert batch.labels is not None
        batch = dataclasses.replace(batch, labels=batch.labels[:, 0])
    # Same values for what both have, so that it is the switch that differs.
    shared = {k: v for k, v in default.state_dict().items() if k in model.state_dict()}
    fits = {k: v for k, v in shared.items() if v.shape == model.state_dict()[k].shape}
    model.load_state_dict(fits, strict=False)
    found, expected = model(batch).logits, default(batch).logits
    assert found.shape != expected.shape or not close(found, expected, 1e-4)
    model.train()
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)


def test_ablations_leave_out_what_they_name() -> None:
    assert set(small().paths) == {"text_text", "speech_text", "speech_speech", "text_speech"}
    assert set(small(inter=False).paths) == {"text_text", "speech_speech"}
    assert set(small(intra=False).paths) == {"speech_text", "text_speech"}
    path = count(small().paths["text_text"]) + 16 * 16  # and its columns of the merger
    assert count(small()) - count(small(inter=False)) == 2 * path
    assert count(small()) - count(small(intra=False)) == 2 * path
    assert count(small()) - count(small(ffn=False)) == 4 * (32 * 16 * 2 + 32 + 16)
    assert count(small()) - count(small(unimodal_gate=False)) == 4 * 16 * 16
    assert count(small()) - count(small(multimodal_gate=False)) == 16 * 16


def test_without_gates_modalities_weigh_the_same() -> None:
    torch.manual_seed(0)
    streams = [Stream(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)) for _ in range(2)]
    fused = MultimodalGate(16, learned=False)(streams)
    assert close(fused.values, (streams[0].values + streams[1].values) / 2)


def test_without_inter_paths_a_modality_does_not_see_the_other() -> None:
    batch = dialogues(5, 3)
    speech = dialogues(5, 3, specs={"speech": SPECS["speech"]}).streams["speech"]
    assert not torch.equal(speech.values, batch.streams["speech"].values)
    other = Batch({**batch.streams, "speech": speech})
    for inter in (True, False):
        model = small(inter=inter)
        assert close(model(batch).extras["text"], model(other).extras["text"], 1e-4) is not inter


@pytest.mark.parametrize("slot", ["text", "speech"])
def test_one_modality_has_no_other_and_no_teacher(slot: str) -> None:
    specs = {slot: SPECS[slot]}
    model, batch = small(specs), dialogues(4, 2, specs=specs)
    assert set(model.paths) == {f"{slot}_{slot}"}
    assert model.mixer is None
    prediction = model(batch)
    assert not prediction.extras
    assert batch.labels is not None
    exist = batch.labels >= 0
    expected = 1.5 * F.cross_entropy(prediction.logits[exist], batch.labels[exist])
    assert close(model.loss(prediction, batch), expected)


def test_no_students_where_nothing_teaches_them() -> None:
    assert set(small().students) == set(SPECS)
    assert set(small(gamma_ce=0.0).students) == set(SPECS)
    assert not small(gamma_ce=0.0, gamma_kl=0.0).students


def test_turns_have_no_order_unless_positions_are_added() -> None:
    batch, order = dialogues(5), [3, 0, 4, 1, 2]
    shuffled = Batch({s: Stream(x.values[:, order], x.mask) for s, x in batch.streams.items()})
    for positional in ("none", "sinusoidal"):
        model = small(positional=positional)
        same = close(model(batch).logits[:, order], model(shuffled).logits)
        assert same is (positional == "none")


def test_sinusoids_are_geometrically_spaced() -> None:
    table = sinusoids(50, 8)
    assert table.shape == (50, 8)
    for pair in range(4):
        angles = torch.arange(50) / 10_000 ** (2 * pair / 8)
        assert close(table[:, 2 * pair], angles.sin())
        assert close(table[:, 2 * pair + 1], angles.cos())
    assert sinusoids(3, 5).shape == (3, 5)


def test_no_speaker_is_among_the_inputs() -> None:
    assert {field.name for field in dataclasses.fields(Batch)} == {
        "streams",
        "labels",
        "ids",
        "inputs",
        "targets",
    }
    with pytest.raises(ParamsError, match="no place for the speaker slot"):
        small({**SPECS, "speaker": StreamSpec(2)})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"inter": False, "intra": False}, "leave nothing to attend to"),
        ({"specs": {"text": SPECS["text"]}, "intra": False}, "leave nothing to attend to"),
        ({"specs": {"speech": StreamSpec(1, bins=9)}}, "speech slot holds bins"),
        ({"heads": 3}, "d_model 16, heads 3; expected a multiple of heads"),
        ({"heads": 0}, "heads 0; expected at least 1"),
        ({"frames_max": 0}, "frames_max 0; expected at least 1"),
        ({"gamma_task": 0.0}, "gamma_task 0.0; expected a finite number above 0"),
        ({"tau": 0.0}, "tau 0.0; expected a finite number above 0"),
        ({"gamma_kl": -1.0}, "gamma_kl -1.0; expected a finite number, at least 0"),
        ({"gamma_ce": math.nan}, "gamma_ce nan; expected a finite number"),
        ({"dropout": 1.0}, "dropout 1.0; expected 0 <= dropout < 1"),
    ],
)
def test_wrong_settings_are_refused(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        small(**args)
