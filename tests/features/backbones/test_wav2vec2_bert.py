"""w2v-BERT equals transformers' network and front end, and padding changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from features.backbones.speech_encoder import SpeechEncoder
from features.backbones.wav2vec2_bert import Wav2Vec2Bert
from features.corpus.utterance import Utterance
from features.errors import CheckpointError
from tests.conftest import RATE, ManifestMaker
from tests.contracts.checkpoints import speech_encoder, wav2vec2_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("w2v-bert")
    wav2vec2_bert.write(root)
    return root


def frames_of(backbone: Wav2Vec2Bert, utterances: list[Utterance]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


def transformers_states(folder: Path, clips: list[Any]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states `[B, T, D]` of the untouched network and front end, and frames that exist."""
    from transformers import AutoFeatureExtractor, AutoModel

    front_end = AutoFeatureExtractor.from_pretrained(folder)
    inputs = front_end(clips, sampling_rate=RATE, return_tensors="pt")
    network = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = network(**inputs, output_hidden_states=True)
    return list(output.hidden_states), inputs["attention_mask"].sum(1)


def test_states_are_those_of_transformers(folder: Path, make_manifest: ManifestMaker) -> None:
    """Of a batch with padding, of spectra with an odd number of frames, and each layer alone."""
    from features.backbones._audio import waveform

    utterances = list(make_manifest([0.7, 1.3, 0.515, 0.4]))
    expected, counts = transformers_states(folder, [waveform(u) for u in utterances])
    assert len(expected) == 4
    for layer in range(4):
        backbone = Wav2Vec2Bert(checkpoint=str(folder), layer=layer)
        assert len(backbone.network.encoder.layers) == layer  # type: ignore[union-attr,arg-type]
        for row, frames in enumerate(frames_of(backbone, utterances)):
            theirs = expected[layer][row, : int(counts[row])]
            assert frames.shape == theirs.shape
            assert torch.allclose(frames, theirs, atol=1e-5)
    every = Wav2Vec2Bert(checkpoint=str(folder), layer="all")
    assert every.spec.dim == 4 * 32


@pytest.mark.parametrize("samples", [560, 719, 720, 879, 880, 16_000, 16_100])
def test_a_state_takes_two_frames_of_the_spectrum(
    samples: int, folder: Path, make_manifest: ManifestMaker
) -> None:
    backbone = Wav2Vec2Bert(checkpoint=str(folder))
    assert backbone.min_samples == 560
    assert backbone.spec.hop_seconds == pytest.approx(0.02)
    (frames,) = frames_of(backbone, list(make_manifest([samples / RATE])))
    assert len(frames) == ((samples - 400) // 160 + 1) // 2


def test_bands_are_normalised_over_each_clip(folder: Path, make_manifest: ManifestMaker) -> None:
    inputs = Wav2Vec2Bert(checkpoint=str(folder)).prepare(list(make_manifest([1.0, 0.4])))
    for mel, length in zip(inputs.tensors["mel"], inputs.tensors["lengths"], strict=True):
        bands = mel[:length].reshape(-1, 80)
        assert torch.allclose(bands.mean(0), torch.zeros(80), atol=1e-4)
        assert torch.allclose(bands.std(0), torch.ones(80), atol=1e-3)
        assert not mel[length:].any()


def test_what_recognisers_have_after_the_last_layer_is_removed(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    wav2vec2_bert.VARIANTS["tuned"](tmp_path)
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path).adapter is not None
    backbone: Any = Wav2Vec2Bert(checkpoint=str(tmp_path))
    assert backbone.network.adapter is None
    assert backbone.network.intermediate_ffn is None
    (frames,) = frames_of(backbone, list(make_manifest([1.0])))
    assert len(frames) == 49


def test_pretraining_noise_is_off_in_training(folder: Path) -> None:
    config: Any = Wav2Vec2Bert(checkpoint=str(folder)).network.config
    assert config.mask_time_prob == config.mask_feature_prob == config.layerdrop == 0


def test_each_kind_names_the_other(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a wav2vec2-bert.*kinds.*wav2vec2_bert"):
        SpeechEncoder(checkpoint=str(folder))
    speech_encoder.write(tmp_path, "Hubert", **speech_encoder.GROUP)
    with pytest.raises(CheckpointError, match=r"is a hubert; expected wav2vec2-bert.*speech_encod"):
        Wav2Vec2Bert(checkpoint=str(tmp_path))


@pytest.mark.parametrize("change", [{"num_mel_bins": 40}, {"stride": 1}, {"sampling_rate": 8000}])
def test_a_front_end_that_does_not_fit_the_network_is_refused(
    change: dict[str, int], tmp_path: Path
) -> None:
    wav2vec2_bert.write(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="expected a SeamlessM4TFeatureExtractor of 16000 Hz"):
        Wav2Vec2Bert(checkpoint=str(tmp_path))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"holds no preprocessor_config.json.*put the file"):
        Wav2Vec2Bert(checkpoint=str(tmp_path))


def test_a_front_end_of_waveforms_is_refused(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    wav2vec2_bert.write(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"is a Wav2Vec2FeatureExtractor.*gives 0 values"):
        Wav2Vec2Bert(checkpoint=str(tmp_path))


def test_what_decides_the_spectrum_is_part_of_the_provenance(folder: Path) -> None:
    found = Wav2Vec2Bert(checkpoint=str(folder)).provenance()
    assert found["front_end"]["num_mel_bins"] == 80
    assert found["front_end"]["stride"] == 2
    assert found["network"]["left_max_position_embeddings"] == 64
    assert found["network"]["position_embeddings_type"] == "relative_key"


def test_size_of_the_public_network() -> None:
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

    with torch.device("meta"):
        network: Any = Wav2Vec2BertModel(Wav2Vec2BertConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 580_493_120
