"""emotion2vec equals FunASR's code; padding and batch-mates change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from features.backbones.emotion2vec import Emotion2vec, normalized
from features.errors import CheckpointError, ParamsError, UtteranceError
from features.networks.emotion2vec import (
    LARGE,
    Attention,
    Sizes,
    alibi_slopes,
    build,
    frame_count,
)
from features.networks.emotion2vec import Emotion2vec as Network
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.emotion2vec import SMALL, plus, weights, wrapped
from tests.support.models.golden import golden

LAYERS = SMALL.prenet_depth + SMALL.depth


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    return golden("emotion2vec_base.npz")


@pytest.fixture(scope="module")
def base() -> Network:
    """The full size, from weights under their public names with FunASR's prefix."""
    named = {f"d2v_model.{name}": tensor for name, tensor in weights(Sizes()).items()}
    return build(weights=named)


@pytest.fixture(scope="module")
def small() -> Network:
    return build(weights=weights())


def clip(pcm: NDArray[np.int16]) -> Tensor:
    return torch.from_numpy(normalized(pcm.astype(np.float32) / np.float32(32768)))


def states_of(network: Network, clips: list[Tensor]) -> list[list[Tensor]]:
    """States `[T, D]` of each clip's own frames."""
    samples = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    with torch.inference_mode():
        states, mask = network(samples, torch.tensor([len(clip) for clip in clips]))
    return [[state[b, mask[b]] for state in states] for b in range(len(clips))]


def close(ours: Tensor, theirs: NDArray[np.float32], tolerance: float) -> None:
    assert tuple(ours.shape) == theirs.shape
    assert np.abs(ours.numpy() - theirs).max() <= tolerance


def test_names_shapes_and_count_are_those_of_the_checkpoint() -> None:
    with torch.device("meta"):
        state = build().state_dict()
    public = {
        entry["key"]: entry["shape"] for entry in golden("emotion2vec_keys.json")["parameters"]
    }
    assert {name: list(tensor.shape) for name, tensor in state.items()} == public
    assert len(state) == 183
    assert sum(tensor.numel() for tensor in state.values()) == 93_171_212
    with torch.device("meta"):
        assert Sizes.of(build().state_dict()) == Sizes()


def test_emotion2vec_plus_large_is_wider_and_has_a_classifier() -> None:
    """Its tensors are the encoder's and a head of nine emotions, without any other."""
    public = golden("emotion2vec_plus_large_keys.json")["tensors"]
    with torch.device("meta"):
        given = {name: torch.empty(shape) for name, shape in public.items()}
        assert Sizes.of({n.removeprefix("d2v_model."): t for n, t in given.items()}) == LARGE
        network = build(weights=given)
    assert network.beside == {"classifier": 2}
    state = network.state_dict()
    assert len(state) == len(public) - 2 == 183
    assert sum(tensor.numel() for tensor in state.values()) == 162_130_960


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("proj.weight", "classifier"),
        ("d2v_model.modality_encoders.AUDIO.decoder.blocks.0.0.weight", "decoder"),
        ("_ema.blocks.0.norm1.weight", "moving average"),
        ("modality_encoders.IMAGE.alibi_scale", "other modalities"),
    ],
)
def test_parts_beside_the_encoder_are_counted(name: str, part: str) -> None:
    assert build(weights=weights() | {name: torch.ones(2, 2)}).beside == {part: 1}


@pytest.mark.parametrize(
    "name",
    [
        "norm.weight",  # after the last block, of pre-norm networks
        "modality_encoders.AUDIO.alibi_bias",  # learned
        "blocks.0.attn.proj.lora_A.weight",
        "something.else",
    ],
)
def test_tensors_that_the_public_network_lacks_are_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"somewhere.*1 unexpected \['{name}'\]"):
        build(weights=weights() | {name: torch.ones(2)}, source="somewhere")


def test_the_classifier_of_emotion2vec_plus_changes_nothing(tmp_path: Path) -> None:
    with_head, without = Emotion2vec(**plus(tmp_path / "plus")), Emotion2vec(**wrapped(tmp_path))
    hashes = [each.provenance()["weights_sha256"] for each in (with_head, without)]
    assert hashes[0] == hashes[1]


def test_slopes_of_twelve_heads() -> None:
    first = [2.0**-k for k in range(1, 9)]
    assert alibi_slopes(12) == first + [2.0 ** -(k + 0.5) for k in range(4)]
    assert alibi_slopes(8) == first


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (719, 1), (720, 2), (16_000, 49)])
def test_frame_count(samples: int, frames: int, small: Network) -> None:
    assert frame_count(samples) == frames
    assert len(states_of(small, [torch.ones(samples)])[0][0]) == frames


@pytest.mark.slow
def test_front_end_is_that_of_the_reference(base: Network, vectors: dict[str, Any]) -> None:
    samples = clip(vectors["pcm"])
    close(samples, vectors["normalized"], 1e-6)
    audio: Any = base.modality_encoders["AUDIO"]
    mask = torch.ones(1, 100, dtype=torch.bool)
    with torch.inference_mode():
        features = audio.local_encoder(samples[None])
        projected = audio.project_features(features.transpose(1, 2))
        position = audio.relative_positional_encoder(projected, mask)
        tokens = audio.tokens(samples[None], mask)
    close(features[0], vectors["local_conv"], 2e-5)
    close(projected[0], vectors["projected"], 2e-5)
    close(position[0], vectors["position"], 2e-5)
    close(tokens[0], vectors["prenet_layernorm"], 2e-5)


@pytest.mark.slow
def test_states_are_those_of_the_reference(base: Network, vectors: dict[str, Any]) -> None:
    """In a batch with a shorter clip, which is padded."""
    long, short = states_of(base, [clip(vectors["pcm"]), clip(vectors["pcm_b"])])
    for layer, name in ((0, "prenet_layernorm"), (4, "prenet_out"), (5, "block0"), (8, "block3")):
        close(long[layer], vectors[name][10:], 2e-5)
    close(long[12], vectors["frames"], 2e-5)
    close(long[12].mean(0), vectors["utterance"], 5e-6)
    close(short[12], vectors["frames_b"], 2e-5)
    close(short[12].mean(0), vectors["utterance_b"], 5e-6)


def test_padding_changes_nothing() -> None:
    """In float64 to its last digits, so that float32 can differ by rounding only."""
    double = build(weights=weights()).double()
    generator = torch.Generator().manual_seed(0)
    clips = [
        torch.randn(length, generator=generator, dtype=torch.float64)
        for length in (9_000, 16_000, 400, 5_001)
    ]
    for together, samples in zip(states_of(double, clips), clips, strict=True):
        (alone,) = states_of(double, [samples])
        for ours, theirs in zip(together, alone, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-13)


def test_values_of_padding_change_nothing(small: Network) -> None:
    """Even values other than zero, as another front end may leave there."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(1, 8_000, generator=generator)
    lengths = torch.tensor([5_000])
    noisy = samples.clone()
    noisy[:, 5_000:] = 7.0
    with torch.inference_mode():
        states, mask = small(samples, lengths)
        others, _ = small(noisy, lengths)
    assert torch.allclose(states[-1][mask], others[-1][mask], atol=1e-6)


def test_bias_depends_on_the_distance_of_frames_only(small: Network) -> None:
    """Scale x slope x distance, and 0 to and from the extra tokens."""
    audio: Any = small.modality_encoders["AUDIO"]
    mask = torch.ones(1, 9, dtype=torch.bool)
    bias = audio.bias(mask).detach()
    extra = SMALL.extra_tokens
    assert bias.shape == (1, SMALL.heads, extra + 9, extra + 9)
    assert not bias[:, :, :extra].any()
    assert not bias[:, :, :, :extra].any()
    slope = alibi_slopes(SMALL.heads)[0] * audio.alibi_scale.detach().flatten()[0]
    assert float(bias[0, 0, extra, extra + 4]) == pytest.approx(-4 * float(slope))
    assert torch.equal(bias, bias.transpose(2, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_distances_stay_exact_under_autocast(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to bfloat16, frames more than 256 apart would share distances with neighbours."""
    seen: list[Tensor] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")  # it would round all arguments
        assert {x.dtype for x in (query, key, value, bias)} == {torch.float32}
        seen.append(bias)
        return attention(query, key, value, bias)

    monkeypatch.setattr("features.networks.emotion2vec.F.scaled_dot_product_attention", watched)
    network = build(weights=weights())
    lengths = torch.tensor([16_000 * 10])
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        states, mask = network(torch.randn(1, int(lengths[0])), lengths)
    assert len(seen) == LAYERS
    assert bool(states[-1][mask].isfinite().all())
    for bias in seen:
        steps = bias[0, 0, SMALL.extra_tokens, SMALL.extra_tokens :].diff()
        assert len(steps) > 400
        assert bool((steps < 0).all())
        assert steps == pytest.approx(float(steps[0]), rel=1e-3)


def test_attention_under_autocast_is_near_that_in_float32() -> None:
    """Scores are the bias alone, values differ between neighbours: rounding would pair them."""
    attention = Attention(dim=8, heads=1)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        attention.qkv.weight[16:] = torch.eye(8)
        attention.proj.weight[:] = torch.eye(8)
    frames = torch.arange(1200)
    x = torch.zeros(1, 1200, 8)
    x[0, ::2], x[0, 1::2] = 1.0, -1.0
    bias = -0.02 * (frames[:, None] - frames).abs().float()[None, None]
    bias = bias.masked_fill((frames[:, None] - frames).abs() < 300, -torch.inf)
    with torch.inference_mode():
        exact = attention(x, bias)
        with torch.autocast("cpu", torch.bfloat16):
            ours = attention(x, bias)
        rounded = attention(x, bias.bfloat16().float())
    assert ours.dtype == torch.bfloat16
    difference = (ours.float() - exact).abs().max()
    assert difference < 1e-4 < (rounded - exact).abs().max()


def test_negative_scale_counts_as_zero() -> None:
    named = weights()
    named["modality_encoders.AUDIO.alibi_scale"][0, 0, 1] = -3.0
    audio: Any = build(weights=named).modality_encoders["AUDIO"]
    bias = audio.bias(torch.ones(1, 5, dtype=torch.bool))
    assert not bias[:, 1].any()
    assert bias[:, 0].any()


def test_layers_are_those_of_the_whole_network(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry, utterances = wrapped(tmp_path / "small"), list(make_manifest([0.4, 0.7]))
    everything = Emotion2vec(**entry, layer="all")
    assert everything.spec.dim == (LAYERS + 1) * SMALL.dim
    assert everything.spec.layers == LAYERS + 1
    with torch.inference_mode():
        stack = everything(everything.prepare(utterances)).values
        states = stack.reshape(*stack.shape[:2], LAYERS + 1, SMALL.dim)
        for layer in range(LAYERS + 1):
            one = Emotion2vec(**entry, layer=layer)
            blocks: Any = one.network
            encoder = blocks.modality_encoders["AUDIO"].context_encoder
            assert len(encoder.blocks) + len(blocks.blocks) == layer
            assert torch.equal(one(one.prepare(utterances)).values, states[:, :, layer])
    with pytest.raises(ParamsError, match=f"layer 9.*it has {LAYERS} layers"):
        Emotion2vec(**entry, layer=9)


def test_backbone_normalises_each_clip_as_a_whole(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    backbone = Emotion2vec(**wrapped(tmp_path / "small"))
    inputs = backbone.prepare(list(make_manifest([0.5, 0.2])))
    for samples, length in zip(inputs.tensors["samples"], inputs.tensors["lengths"], strict=True):
        assert float(samples[:length].mean()) == pytest.approx(0, abs=1e-6)
        assert float(samples[:length].std()) == pytest.approx(1, abs=1e-3)
        assert not samples[length:].any()
    assert not normalized(np.zeros(500, np.float32)).any()
    with pytest.raises(UtteranceError, match=r"320 samples.*at least 400"):
        backbone.prepare(list(make_manifest([0.02])))


def test_same_weights_from_other_files_are_the_same_backbone(tmp_path: Path) -> None:
    ours = Emotion2vec(**wrapped(tmp_path / "small")).provenance()
    (tmp_path / "flat").mkdir()
    save_file(weights(), tmp_path / "flat" / "model.safetensors")
    theirs = Emotion2vec(checkpoint=str(tmp_path / "flat")).provenance()
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    assert ours["layer"] == LAYERS


@pytest.mark.parametrize("name", ["blocks.1.norm2.bias", "modality_encoders.AUDIO.extra_tokens"])
def test_missing_weights_are_an_error(name: str) -> None:
    named = weights()
    del named[name]
    with pytest.raises(CheckpointError, match=f"somewhere.*{name.rsplit('.', 1)[1]}"):
        build(weights=named, source="somewhere")


def test_weights_of_another_shape_are_an_error() -> None:
    named = weights()
    named["blocks.0.attn.qkv.weight"] = torch.ones(3, SMALL.dim)
    with pytest.raises(CheckpointError, match=r"1 of another shape .*qkv.weight \(3, 48\) instead"):
        build(weights=named, source="somewhere")
