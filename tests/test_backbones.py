"""Batched = single for every backbone, and each keeps its contract."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone_entry import PACKAGE, backbone_entry
from features.backbones._backbone import Backbone
from features.errors import CheckpointError, ParamsError, UtteranceError
from features.manifest import Utterance
from features.plugins import kinds
from tests.conftest import ManifestMaker

RAGGED = [0.5, 1.3, 0.11, 0.9]  # seconds


def tiny_whisper(folder: Path) -> Path:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 1, "vocab_size": 60}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ffn = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1)
    config = WhisperConfig(**sizes, **heads, **ffn, **tokens, decoder_start_token_id=1)
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def tiny_bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "utterance", "number"]
    vocabulary = {word: index for index, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "whisper": tiny_whisper(root / "tiny_whisper"),
            "text_encoder": tiny_bert(root / "tiny_bert"),
        }


def entry_of(kind: str, checkpoints: Mapping[str, Path], **more: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": kind, **more}
    if kind in checkpoints:
        entry["checkpoint"] = str(checkpoints[kind])
    return entry


def build(kind: str, checkpoints: Mapping[str, Path], **more: Any) -> Backbone:
    return backbone_entry("x", entry_of(kind, checkpoints, **more)).build()


def frames_of(backbone: Backbone, utterances: list[Utterance]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


ALL = [kind for kind in kinds(PACKAGE) if kind != "none"]


@pytest.mark.parametrize("pooling", ["frames", "mean", "first"])
@pytest.mark.parametrize("kind", ALL)
def test_batched_equals_single(
    kind: str, pooling: str, checkpoints: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    if kind == "f0" and pooling != "frames":
        pytest.skip("bins are not pooled")
    backbone = build(kind, checkpoints, pooling=pooling)
    utterances = list(make_manifest(RAGGED))
    together = frames_of(backbone, utterances)
    for utterance, frames in zip(utterances, together, strict=True):
        (alone,) = frames_of(backbone, [utterance])
        assert frames.shape == alone.shape
        assert len(frames) > 0
        scale = float(alone.abs().max().clamp(min=1e-6))
        assert float((frames - alone).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("kind", ALL)
def test_contract(kind: str, checkpoints: dict[str, Path], make_manifest: ManifestMaker) -> None:
    backbone = build(kind, checkpoints)
    (utterance,) = make_manifest([1.0])
    (frames,) = frames_of(backbone, [utterance])
    spec = backbone.spec
    assert frames.shape[1:] == (() if spec.bins is not None else (spec.dim,))
    if spec.hop_seconds is not None:
        assert abs(len(frames) * spec.hop_seconds - 1.0) <= 2 * spec.hop_seconds
    without = {"audio": Utterance("a", text="x"), "text": Utterance("a", audio="x.wav")}
    with pytest.raises(UtteranceError, match=f"has no {backbone.reads}"):
        backbone.prepare([without[backbone.reads]])
    assert backbone.provenance() == build(kind, checkpoints).provenance()


@pytest.mark.parametrize("kind", ["whisper", "text_encoder"])
def test_layers_are_those_of_transformers(
    kind: str, checkpoints: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    """A network cut after layer k gives hidden state k of the whole network."""
    (utterance,) = make_manifest([1.0])
    whole = build(kind, checkpoints)
    inputs = whole.prepare([utterance])
    network: Any = whole.network  # type: ignore[attr-defined]
    with torch.inference_mode():
        if kind == "whisper":
            states = network(inputs.tensors["mel"][0], output_hidden_states=True).hidden_states
        else:
            states = network(**inputs.tensors, output_hidden_states=True).hidden_states
    for layer in range(4):
        (frames,) = frames_of(build(kind, checkpoints, layer=layer), [utterance])
        assert torch.allclose(frames, states[layer][0, : len(frames)], atol=1e-6)
        (same,) = frames_of(build(kind, checkpoints, layer=layer - 4), [utterance])
        assert torch.equal(frames, same)


@pytest.mark.parametrize("kind", ["whisper", "text_encoder"])
def test_identity_of_weights(kind: str, checkpoints: dict[str, Path]) -> None:
    hashes = {
        layer: build(kind, checkpoints, layer=layer).provenance()["weights_sha256"]
        for layer in (-1, 1)
    }
    assert len(set(hashes.values())) == 2


def test_whisper_joins_windows_of_thirty_seconds(
    checkpoints: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    backbone = build("whisper", checkpoints)
    long, short = make_manifest([31.0, 1.0])
    frames = frames_of(backbone, [long, short])
    assert [len(f) for f in frames] == [1550, 50]
    (alone,) = frames_of(backbone, [long])
    assert torch.allclose(frames[0], alone, atol=1e-5)


def test_too_short_audio_is_rejected(
    checkpoints: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    (blip,) = make_manifest([0.01])
    for kind in ALL:
        backbone = build(kind, checkpoints)
        if backbone.reads == "audio":
            with pytest.raises(UtteranceError, match=r"160 samples.*at least"):
                backbone.prepare([blip])


def test_f0_finds_the_pitch(make_manifest: ManifestMaker) -> None:
    (utterance,) = make_manifest([1.0], start=2)  # 180 Hz
    for method in ("harvest", "dio"):
        (bins,) = frames_of(build("f0", {}, method=method), [utterance])
        from features.pitch import bin_to_hz

        assert np.median(bin_to_hz(bins.numpy())) == pytest.approx(180, abs=3)


def test_unknown_layer_and_pooled_bins_are_errors(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ParamsError, match=r"layer 9.*it has 3 layers"):
        build("text_encoder", checkpoints, layer=9)
    with pytest.raises(ParamsError, match="bins cannot be pooled"):
        build("f0", {}, pooling="mean")


def test_missing_checkpoint_says_what_to_download_and_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"'nobody/nothing'.*\n.*HERONRY_CHECKPOINTS"):
        build("text_encoder", {}, checkpoint="nobody/nothing")


def test_checkpoints_are_found_below_the_named_folder(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(checkpoints["text_encoder"].parent))
    build("text_encoder", {}, checkpoint="somebody/tiny_bert")


def test_checkpoint_of_another_network_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"lacks|cannot load"):
        build("whisper", {}, checkpoint=str(checkpoints["text_encoder"]))
