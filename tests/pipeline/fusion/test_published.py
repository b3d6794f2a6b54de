"""The fusions `transformer`, `bigru_cross` and `hcam` against the MDAT paper's code.

Sizes, and golden vectors (golden/README.md §3.5): logits to 1e-5, outputs of layers to 2e-5.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.fusion._parts.front import PUBLIC_NAMES, Front
from pipeline.fusion._parts.layers import BiGRU, renamed
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import make_model
from tests.support.models import fusion_golden
from tests.support.models.fusion_golden import SPECS, outputs

PARAMETERS = {"transformer": 8_543_240, "bigru_cross": 22_193_160, "hcam": 34_796_552}
# Modules of ours by the golden output that they must equal.
TAPS = {
    "transformer": {
        "audio_trans_enc_out": "encoders.speech",
        "text_trans_enc_out": "encoders.text",
    },
    "bigru_cross": {
        "audio_bi_lstm_out": "recurrent.speech",
        "audio_attn_out": "cross.speech.attention",
        "text_attn_out": "cross.text.attention",
    },
    "hcam": {
        "audio_context_gru_out": "recurrent.speech",
        "audio_ln_after_self_out": "own.speech",
        "audio_ln_after_cross_out": "cross.speech",
        "text_ln_after_cross_out": "cross.text",
    },
}
KINDS = list(PARAMETERS)
PAIR = {slot: SPECS[slot] for slot in ("speech", "text")}
WIDTHS = {"d_model": 16, "heads": 2}


def public_model(kind: str, **args: Any) -> FusionModel:
    """A model with the golden weights, brought in by the module's own `from_public`."""
    with torch.device("meta"):
        model = make_model(kind, args, PAIR, 8)
    module = importlib.import_module(f"pipeline.fusion.{kind}")
    state = module.from_public(fusion_golden.public_weights(kind))
    model.load_state_dict(state, assign=True)
    return model.eval()


def small(kind: str, specs: Mapping[str, StreamSpec], **args: Any) -> FusionModel:
    torch.manual_seed(0)
    return make_model(kind, {**WIDTHS, **args}, specs, 8).eval()


def padded_with_numbers(batch: Batch) -> Batch:
    """The batch with frames that are not zero under the padding."""
    return Batch(
        {
            slot: Stream(torch.where(s.mask[..., None], s.values, 1.0), s.mask)
            for slot, s in batch.streams.items()
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_the_public_one(kind: str) -> None:
    with torch.device("meta"):
        model = make_model(kind, {}, PAIR, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[kind]
    assert fusion_golden.parameters_total(kind) == PARAMETERS[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_padding", [True, False])
def test_logits_and_layers_equal_the_public_code(kind: str, mask_padding: bool) -> None:
    model = public_model(kind, mask_padding=mask_padding)
    expected = fusion_golden.vectors(kind)
    batch = fusion_golden.inputs("speech", "text")
    with torch.inference_mode():
        assert torch.allclose(
            model(batch).logits, torch.from_numpy(expected["logits"]), rtol=0, atol=1e-5
        )
    found = outputs(model, batch, TAPS[kind])
    assert set(found) == {*TAPS[kind], "pooled"}
    for tap, values in found.items():
        difference = (values - torch.from_numpy(expected[tap])).abs().max()
        assert difference <= 2e-5, f"{tap}: {difference}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_masked_batch_equals_the_public_code_on_each_item_alone(kind: str) -> None:
    model = public_model(kind)
    fusion_golden.assert_equals_public(model, kind, "speech", "text")
    expected = fusion_golden.vectors(kind)
    batch = padded_with_numbers(fusion_golden.inputs("speech", "text", ragged=True))
    pooled = outputs(model, batch, {})["pooled"]
    assert torch.allclose(pooled, torch.from_numpy(expected["pooled_ragged"]), rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_without_masks_padding_takes_part_as_in_the_public_code(kind: str) -> None:
    """The whole batch, its last frames declared padding: unmasked they count as they are."""
    whole = fusion_golden.inputs("speech", "text")
    ragged = fusion_golden.inputs("speech", "text", ragged=True)
    marked = Batch({s: Stream(whole.streams[s].values, ragged.streams[s].mask) for s in PAIR})
    expected = fusion_golden.vectors(kind)
    with torch.inference_mode():
        plain = public_model(kind, mask_padding=False)(marked).logits
        masked = public_model(kind)(marked).logits
    assert torch.allclose(plain, torch.from_numpy(expected["logits"]), rtol=0, atol=1e-5)
    assert torch.allclose(masked, torch.from_numpy(expected["logits_ragged"]), rtol=0, atol=1e-5)
    assert (plain - masked)[1].abs().max() > 0.05


def test_attention_weights_equal_the_public_code() -> None:
    model: Any = public_model("bigru_cross")
    expected = fusion_golden.vectors("bigru_cross")
    speech = torch.from_numpy(expected["audio_bi_lstm_out"])
    batch = fusion_golden.inputs("speech", "text")
    text = outputs(model, batch, {"text": "recurrent.text"})["text"]
    for slot, public, own, other in (
        ("speech", "audio", speech, text),
        ("text", "text", text, speech),
    ):
        with torch.inference_mode():
            weights = model.cross[slot].attention(own, other, other, need_weights=True)[1]
        given = torch.from_numpy(expected[f"{public}_attn_weights"])
        assert torch.allclose(weights, given, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "ragged", "mask_padding"),
    [("pooled", False, True), ("pooled", False, False), ("pooled_ragged", True, True)],
)
def test_pitch_and_spectral_branches_equal_the_public_code(
    name: str, ragged: bool, mask_padding: bool
) -> None:
    """These by-pass the fusion: what they give is that part of any public model's vector."""
    variant = "mdat_f0_ced_swiglu"
    slots = ("prosody", "spectral")
    front = Front({s: SPECS[s] for s in slots}, 512, 0.5, mask_padding=mask_padding).eval()
    parts = ("f0_embedding", "f0_proj", "mel_spec_encoder.proj_layer")
    public = fusion_golden.public_weights(variant)
    chosen = {key: value for key, value in public.items() if key.startswith(parts)}
    state = renamed(chosen, PUBLIC_NAMES)
    front.load_state_dict({key.removeprefix("front."): value for key, value in state.items()})
    with torch.inference_mode():
        found = torch.cat(front.vectors(fusion_golden.inputs(*slots, ragged=ragged)), dim=1)
    expected = torch.from_numpy(fusion_golden.vectors(variant)[name])[:, 1024:]
    assert torch.allclose(found, expected, rtol=0, atol=2e-5)


def test_unmasked_bins_carry_the_padding_index() -> None:
    """Shorter bins in a batch read as if they went on with the index after the last bin."""
    torch.manual_seed(0)
    front = Front({"prosody": StreamSpec(dim=1, bins=4)}, 6, 0.0, mask_padding=False)
    pitch: Any = front.projections["prosody"]
    found = front.vectors(
        Batch({"prosody": Stream.pad([torch.tensor([3, 0]), torch.ones(1).long()])})
    )
    expected = pitch.projection(pitch.embedding(torch.tensor([1, 4]))).mean(0)
    assert torch.allclose(found[0][1], expected)


def test_text_in_hcam_attends_to_speech_that_knows_the_text() -> None:
    """Undoing what speech gathered from the text changes what text gathers from speech."""
    specs = {"speech": StreamSpec(dim=6), "text": StreamSpec(dim=5)}
    model: Any = small("hcam", specs)
    torch.manual_seed(1)
    streams = {
        slot: Stream.pad([torch.randn(4, spec.dim), torch.randn(7, spec.dim)])
        for slot, spec in specs.items()
    }
    text = outputs(model, Batch(streams), {"text": "cross.text"})["text"]
    nn.init.zeros_(model.cross["speech"].attention.attention.out_proj.weight)
    changed = outputs(model, Batch(streams), {"text": "cross.text"})["text"]
    assert not torch.allclose(text, changed, atol=1e-3)


@pytest.mark.parametrize("kind", ["bigru_cross", "hcam"])
@pytest.mark.parametrize("slot", ["speech", "text"])
def test_one_modality_alone_has_no_cross_attention(kind: str, slot: str) -> None:
    assert not [name for name in small(kind, {slot: SPECS[slot]}).state_dict() if "cross" in name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("empty", ["speech", "text"])
def test_an_utterance_without_frames_has_finite_scores_and_gradients(kind: str, empty: str) -> None:
    specs = {"speech": StreamSpec(dim=6), "text": StreamSpec(dim=5)}
    streams = {
        slot: Stream.pad([torch.randn(0 if slot == empty else 3, s.dim), torch.randn(4, s.dim)])
        for slot, s in specs.items()
    }
    model, batch = small(kind, specs), Batch(streams, torch.tensor([0, 1]))
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    assert all(
        p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_swiglu_classifier(kind: str) -> None:
    specs = {"speech": StreamSpec(dim=6), "text": StreamSpec(dim=5)}
    names = set(small(kind, specs, classifier="swiglu", hidden=8).state_dict())
    assert {"classifier.gate.weight", "classifier.value.weight"} <= names


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("args", "message"), [({"heads": 3}, "heads 3"), ({"dropout": 1.0}, "dropout 1.0")]
)
def test_sizes_that_do_not_fit_are_refused(kind: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=f"{kind}: {message}"):
        small(kind, PAIR, **args)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_that_do_not_fit_are_refused(kind: str) -> None:
    with pytest.raises(ParamsError, match="no place for the nonverbal slot"):
        small(kind, {**PAIR, "nonverbal": StreamSpec(dim=4)})
    with pytest.raises(ParamsError, match="the text slot holds bins"):
        small(kind, {"text": StreamSpec(dim=1, bins=8)})


def test_weights_of_another_model_are_refused() -> None:
    module = importlib.import_module("pipeline.fusion.transformer")
    with pytest.raises(ParamsError, match="audio_bi_lstm"):
        module.from_public(fusion_golden.public_weights("bigru_cross"))


def test_backward_direction_starts_at_the_last_frame_of_each_sequence() -> None:
    """Both directions are those of torch's GRU on each sequence alone, and padding gives zeros."""
    torch.manual_seed(0)
    layer = BiGRU(3, 4)
    sequences = [torch.randn(length, 3) for length in (2, 5, 1, 0)]
    stream = Stream.pad(sequences)
    given = Stream(torch.where(stream.mask[..., None], stream.values, 9.0), stream.mask)
    with torch.inference_mode():
        found = layer(given)
        for states, sequence in zip(found.unpad()[:3], sequences[:3], strict=True):
            assert torch.allclose(states, layer.gru(sequence)[0], atol=1e-6)
    assert found.values.shape == (4, 5, 8)
    assert not found.values[~found.mask].any()
