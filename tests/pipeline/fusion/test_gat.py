"""The graph-attention fusion: equal to the public MDAT models, its switches, its sizes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.fusion.gat import Gat, from_public
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import make_model
from tests.support.models import fusion_golden
from tests.support.models.fusion_golden import SPECS, outputs

TWO = ("speech", "text")
THREE = (*TWO, "prosody")
SWIGLU = {"classifier": "swiglu", "hidden": 768}
TAP_TOLERANCE = 2e-5


@dataclass(frozen=True)
class Variant:
    """Model of the public code: our arguments, and our modules by the golden output of theirs."""

    slots: tuple[str, ...]
    args: Mapping[str, Any]
    taps: Mapping[str, str]


CO_TAPS = {
    "audio_projected": "fronts.speech",
    "text_projected": "fronts.text",
    "audio_graph_attn_out": "graphs.speech",
    "text_graph_attn_out": "graphs.text",
    "audio_trans_enc_out": "encoders.speech",
    "text_trans_enc_out": "encoders.text",
    "audio_pooled": "pools.speech",
}
MULTIHEAD_TAPS = {
    "audio_ln_after_cross_out": "exchange.first",
    "text_ln_after_cross_out": "exchange.second",
}
CROSS_TAPS = {
    "f0_graph_attn_out": "graphs.prosody",
    "f0_trans_enc_out": "encoders.prosody",
}
VARIANTS = {
    "mdat": Variant(TWO, {}, CO_TAPS),
    "mdat_multihead": Variant(TWO, {"attention": "multihead"}, MULTIHEAD_TAPS),
    "mdat_f0_swiglu": Variant(THREE, SWIGLU, {"f0_proj_out": "fronts.prosody"}),
    "mdat_f0x256_swiglu": Variant(THREE, {**SWIGLU, "f0_embedding": 256}, {}),
    "mdat_f0_cross_swiglu": Variant(THREE, {**SWIGLU, "f0_attention": True}, CROSS_TAPS),
    "mdat_f0_ced_swiglu": Variant((*THREE, "spectral"), {**SWIGLU, "hidden": 1024}, {}),
}


@functools.cache
def public_model(name: str, *, mask_padding: bool = True) -> Any:
    """A model with the public weights of a variant."""
    variant = VARIANTS[name]
    with torch.device("meta"):
        specs = {slot: SPECS[slot] for slot in variant.slots}
        model = make_model("gat", {**variant.args, "mask_padding": mask_padding}, specs, 8)
    model.load_state_dict(from_public(fusion_golden.public_weights(name)), assign=True)
    return model.eval()


def small(*slots: str, **args: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_heads": 2, "f0_embedding": 8, **args}
    return Gat({slot: SPECS[slot] for slot in slots}, 4, **sizes).eval()


def parameters(*slots: str, **args: Any) -> int:
    with torch.device("meta"):
        model = make_model("gat", args, {slot: SPECS[slot] for slot in slots}, 8)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_the_public_models(name: str) -> None:
    """Whole and ragged, at 1e-5, with the public number of parameters."""
    fusion_golden.assert_equals_public(public_model(name), name, *VARIANTS[name].slots)


@pytest.mark.parametrize("name", VARIANTS)
def test_taps_equal_the_public_models(name: str) -> None:
    variant, expected = VARIANTS[name], fusion_golden.vectors(name)
    model = public_model(name)
    found = outputs(model, fusion_golden.inputs(*variant.slots), variant.taps)
    assert found.keys() == {*variant.taps, "pooled"}
    for tap, values in found.items():
        difference = (values - torch.from_numpy(expected[tap])).abs().max()
        assert difference <= TAP_TOLERANCE, f"{name} {tap}: {difference}"
    ragged = outputs(model, fusion_golden.inputs(*variant.slots, ragged=True), {})["pooled"]
    assert (ragged - torch.from_numpy(expected["pooled_ragged"])).abs().max() <= TAP_TOLERANCE


@torch.inference_mode()
def test_attention_inside_equals_the_public_models() -> None:
    model, expected = public_model("mdat"), fusion_golden.vectors("mdat")
    batch = fusion_golden.inputs(*TWO)
    modules = ["fronts.speech", "exchange", "graphs.speech", "graphs.text"]
    found = outputs(model, batch, {name: name for name in modules})
    layer = model.graphs["speech"][0]
    speech = Stream(found["fronts.speech"], batch.streams["speech"].mask)
    a, b = (Stream(found[f"graphs.{slot}"], batch.streams[slot].mask) for slot in TWO)
    compared = {
        "audio_graph_alpha": layer.weights(layer.nodes(speech), speech.mask)[:, 0],
        "affinity": model.exchange.affinity(a, b),
        "coattention_audio": found["exchange"][0],
        "coattention_text": found["exchange"][1],
    }
    for name, values in compared.items():
        # The affinity is not scaled: its numbers are large.
        scale = max(1.0, float(abs(expected[name]).max()))
        difference = (values - torch.from_numpy(expected[name])).abs().max() / scale
        assert difference <= TAP_TOLERANCE, f"{name}: {difference}"


@pytest.mark.parametrize("name", ["mdat", "mdat_f0_cross_swiglu"])
def test_without_masks_whole_batches_are_the_same_and_ragged_ones_differ(name: str) -> None:
    model, slots = public_model(name, mask_padding=False), VARIANTS[name].slots
    expected = fusion_golden.vectors(name)
    with torch.inference_mode():
        whole = model(fusion_golden.inputs(*slots)).logits
        ragged = model(fusion_golden.inputs(*slots, ragged=True)).logits
    assert (whole - torch.from_numpy(expected["logits"])).abs().max() <= 1e-5
    difference = (ragged - torch.from_numpy(expected["logits_ragged"])).abs().max(1).values
    assert difference[0] <= 1e-5  # it has no padding
    assert difference[1] > 0.05


@torch.inference_mode()
def test_without_masks_padding_is_zeros_and_the_bin_for_padding() -> None:
    """As in the public code: F0 padded with the number of bins, the rest with zeros."""
    ragged = fusion_golden.inputs(*THREE, ragged=True)
    by_hand = small(*THREE)(fusion_golden.padded_as_public(ragged)).logits
    assert torch.allclose(small(*THREE, mask_padding=False)(ragged).logits, by_hand, atol=1e-6)
    assert not torch.allclose(small(*THREE)(ragged).logits, by_hand, atol=1e-3)


def test_each_graph_layer_adds_its_own_size_and_heads_add_none() -> None:
    base, layer = parameters(*TWO), 512 * 512 + 1024
    assert parameters(*TWO, gat_layers=3) == base + 2 * 2 * layer
    assert parameters(*TWO, heads=8) == base


def test_switching_co_attention_off_removes_exactly_that() -> None:
    assert parameters(*TWO, co_attention=False) == parameters(*TWO) - 2 * 512 * 512
    with_f0 = parameters(*THREE, f0_attention=True)
    assert parameters(*THREE, f0_attention=True, co_attention=False) == with_f0 - 4 * 512 * 512


@torch.inference_mode()
def test_without_co_attention_a_modality_is_blind_to_the_other() -> None:
    model = small(*THREE, co_attention=False, f0_attention=True)
    batch = fusion_golden.inputs(*THREE)
    streams = dict(batch.streams)
    streams["speech"] = Stream(streams["speech"].values.flip(1, 2), streams["speech"].mask)
    modules = {name: name for name in ("pools.speech", "pools.text", "pools.prosody")}
    before, after = outputs(model, batch, modules), outputs(model, Batch(streams), modules)
    assert torch.equal(before["pools.text"], after["pools.text"])
    assert torch.equal(before["pools.prosody"], after["pools.prosody"])
    assert not torch.allclose(before["pools.speech"], after["pools.speech"])


@pytest.mark.parametrize(
    "args", [{"gat_layers": 2}, {"heads": 4}, {"co_attention": False}, {"attention": "multihead"}]
)
@torch.inference_mode()
def test_switches_change_the_output(args: dict[str, Any]) -> None:
    batch = fusion_golden.inputs(*TWO, ragged=True)
    assert not torch.allclose(small(*TWO, **args)(batch).logits, small(*TWO)(batch).logits)


@pytest.mark.parametrize("slots", [("speech",), ("text",), ("speech", "prosody"), ("prosody",)])
@pytest.mark.parametrize("attention", ["co", "multihead"])
def test_single_partner_has_nothing_to_exchange(slots: tuple[str, ...], attention: str) -> None:
    model = small(*slots, attention=attention, f0_attention=True)
    assert model.exchange is None
    assert (model.f0_exchange is not None) == (slots == ("speech", "prosody"))
    logits = model(fusion_golden.inputs(*slots, ragged=True)).logits
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_real_valued_prosody_is_projected() -> None:
    model = Gat({"prosody": StreamSpec(dim=3)}, 4, d_model=8, encoder_heads=2)
    assert "embedding" not in "".join(model.state_dict())
    assert model(Batch({"prosody": Stream.pad([torch.randn(4, 3)])})).logits.shape == (1, 4)


HERTZ = {"prosody": StreamSpec(dim=1, hop_seconds=0.02)}


def test_raw_f0_has_the_size_of_the_papers_convolution() -> None:
    """One channel, kernel 3, 256 channels; then what embeddings of 256 bins 256 wide pass."""
    with torch.device("meta"):
        specs = {slot: SPECS[slot] for slot in TWO} | HERTZ
        model = make_model("gat", {"f0_channels": 256}, specs, 8)
    count = sum(parameter.numel() for parameter in model.parameters())
    bins = parameters(*THREE, f0_embedding=256)
    assert count == bins - 257 * 256 + (3 * 256 + 256) == 11_567_112


@torch.inference_mode()
def test_raw_f0_of_a_batch_is_that_of_each_clip_and_its_order_in_time_counts() -> None:
    torch.manual_seed(0)
    model = Gat(HERTZ, 4, d_model=8, encoder_heads=2, f0_channels=6).eval()
    tracks = [torch.rand(length, 1) * 300 for length in (1, 7, 4)]
    together = model(Batch({"prosody": Stream.pad(tracks)})).logits
    for track, logits in zip(tracks, together, strict=True):
        alone = model(Batch({"prosody": Stream.pad([track])})).logits
        assert torch.allclose(alone[0], logits, atol=1e-5)
    backwards = model(Batch({"prosody": Stream.pad([tracks[1].flip(0)])})).logits
    assert not torch.allclose(backwards[0], together[1], atol=1e-3)


def test_raw_f0_takes_part_in_the_attention() -> None:
    specs = {"speech": SPECS["speech"], **HERTZ}
    model = Gat(specs, 4, d_model=8, encoder_heads=2, f0_channels=6, f0_attention=True)
    speech = fusion_golden.inputs("speech").streams["speech"]
    prosody = Stream(torch.rand(*speech.mask.shape, 1), speech.mask)
    model(Batch({"speech": speech, "prosody": prosody})).logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("slots", [TWO, THREE])
def test_raw_f0_needs_real_values(slots: tuple[str, ...]) -> None:
    with pytest.raises(ParamsError, match=r"f0_channels 256 with (no prosody slot|256 bins)"):
        small(*slots, f0_channels=256)


@pytest.mark.parametrize("attention", ["co", "multihead"])
def test_utterance_without_frames_is_finite_and_so_are_all_gradients(attention: str) -> None:
    slots = (*THREE, "spectral")
    model = small(*slots, attention=attention, f0_attention=True).train()
    streams = {}
    for slot, stream in fusion_golden.inputs(*slots).streams.items():
        mask = stream.mask.clone()
        mask[1] = False
        streams[slot] = Stream(stream.values, mask)
    logits = model(Batch(streams)).logits
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_training_checkpoints_of_the_public_code_load_too() -> None:
    """Lightning's prefix, the loss's class weights, and the CED network itself."""
    public = fusion_golden.public_weights("mdat_f0_ced_swiglu")
    trained = {f"model.{key}": value for key, value in public.items()}
    trained["criterion.weight"] = torch.ones(8)
    trained["model.mel_spec_encoder.encoder.blocks.0.norm1.weight"] = torch.ones(384)
    assert from_public(trained).keys() == public_model("mdat_f0_ced_swiglu").state_dict().keys()


def test_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(ParamsError, match="audio_context_gru"):
        from_public({"audio_context_gru.weight_ih_l0": torch.ones(1)})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"gat_layers": 0}, "gat_layers 0; expected 1 to 3"),
        ({"gat_layers": 4}, "gat_layers 4; expected 1 to 3"),
        ({"encoder_heads": 3}, "encoder_heads 3; expected a divisor of d_model, 16"),
        ({"heads": 0}, "heads 0; expected a divisor of d_model, 16"),
        ({"dropout": 1.0}, "dropout 1.0; expected 0 <= dropout < 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        small(*TWO, **args)


def test_slots_it_has_no_place_for_are_refused() -> None:
    with pytest.raises(ParamsError, match="no place for the nonverbal slot"):
        Gat({"nonverbal": StreamSpec(dim=4)}, 4)
    with pytest.raises(ParamsError, match="the text slot holds bins"):
        Gat({"text": SPECS["prosody"]}, 4)
