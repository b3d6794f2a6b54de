"""Whisper's encoder: windows, trimmed clips, and golden vectors of the mel front end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from features.backbones.whisper import Whisper
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError, UtteranceError
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import text_encoder, whisper
from tests.support.models.golden import golden


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(whisper.write(tmp_path_factory.mktemp("whisper"))["checkpoint"])


def frames_of(backbone: Whisper, utterances: list[Utterance]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


@pytest.mark.parametrize("clip", ["a", "b"])
def test_mel_equals_golden(clip: str, tmp_path: Path) -> None:
    whisper.write(tmp_path / "mel128", bands=128)
    backbone = Whisper(checkpoint=str(tmp_path / "mel128"))
    vectors = golden("whisper_logmel.npz")
    pcm = vectors[f"pcm_{clip}"]
    soundfile.write(tmp_path / "clip.wav", pcm, 16_000, subtype="PCM_16")
    inputs = backbone.prepare([Utterance("a", audio=str(tmp_path / "clip.wav"))])
    mel = inputs.tensors["mel"][0, 0].numpy()
    head = vectors[f"logmel_{clip}_head"]
    assert mel.shape == (128, 3000)
    assert np.abs(mel[:, : head.shape[1]] - head).max() <= 1e-4
    assert np.abs(mel[:, head.shape[1] :] - vectors[f"logmel_{clip}_rest_value"]).max() <= 1e-4
    assert np.abs(backbone.front_end.mel_filters.T - vectors["mel_filters"]).max() <= 1e-6


def test_states_are_those_of_transformers(checkpoint: str, make_manifest: ManifestMaker) -> None:
    (utterance,) = make_manifest([0.5])
    whole = Whisper(checkpoint=checkpoint)
    network: Any = whole.network
    with torch.inference_mode():
        mel = whole.prepare([utterance]).tensors["mel"][0]
        expected = network(mel, output_hidden_states=True).hidden_states
    for layer in range(4):
        (frames,) = frames_of(Whisper(checkpoint=checkpoint, layer=layer), [utterance])
        assert torch.equal(frames, expected[layer][0, :25])


@pytest.mark.parametrize("seconds", [0.025, 0.52, 0.535])
def test_trimmed_states_are_those_of_a_shorter_network(
    seconds: float, checkpoint: str, make_manifest: ManifestMaker
) -> None:
    """The oracle is transformers' own forward of an encoder with as many positions as states."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    (utterance,) = make_manifest([seconds])
    backbone = Whisper(checkpoint=checkpoint, pad="trim", layer="all")
    whole: Any = backbone.network
    count = round(seconds * 16_000) // 320
    oracle = WhisperEncoder(type(whole.config)(**whole.config.to_dict())).eval()
    oracle.load_state_dict(whole.state_dict())
    oracle.config.max_source_positions = count
    oracle.embed_positions = torch.nn.Embedding(count, 16)
    oracle.embed_positions.weight = torch.nn.Parameter(whole.embed_positions.weight[:count])
    with torch.inference_mode():
        mel = backbone.prepare([utterance]).tensors["mel"][0]
        expected = oracle(mel, output_hidden_states=True).hidden_states
    assert mel.shape == (1, 80, 2 * count)
    (frames,) = frames_of(backbone, [utterance])
    assert torch.allclose(frames, torch.cat(expected, dim=-1)[0], atol=1e-6)


def test_trimming_changes_states_unless_the_window_is_full(
    checkpoint: str, make_manifest: ManifestMaker
) -> None:
    padded, trimmed = (Whisper(checkpoint=checkpoint, pad=pad) for pad in ("30s", "trim"))
    short, full = make_manifest([1.0, 30.0])
    for utterance, same in ((short, False), (full, True)):
        (a,), (b,) = frames_of(padded, [utterance]), frames_of(trimmed, [utterance])
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-5) == same
    assert padded.provenance()["pad"] == "30s"
    assert trimmed.provenance() == padded.provenance() | {"pad": "trim"}
    assert (padded.window_seconds, trimmed.window_seconds) == (30.0, 0.0)


@pytest.mark.parametrize("pad", ["30s", "trim"])
def test_long_clips_are_joined_windows(
    pad: Any, checkpoint: str, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    backbone = Whisper(checkpoint=checkpoint, pad=pad)
    long, short = make_manifest([30.61, 1.0])
    together = frames_of(backbone, [short, long])
    assert [len(frames) for frames in together] == [50, 1530]
    samples, rate = soundfile.read(str(long.audio))
    for name, part in (("head", samples[: 30 * rate]), ("rest", samples[30 * rate :])):
        soundfile.write(tmp_path / f"{name}.wav", part, rate, subtype="PCM_16")
    parts = [Utterance(n, audio=str(tmp_path / f"{n}.wav")) for n in ("head", "rest")]
    expected = torch.cat([frames_of(backbone, [part])[0] for part in parts])
    assert torch.allclose(together[1], expected, atol=1e-5)


def test_a_rest_of_less_than_a_state_gets_no_window(
    checkpoint: str, make_manifest: ManifestMaker
) -> None:
    (utterance,) = make_manifest([30 + 319 / 16_000])
    for pad in ("30s", "trim"):
        inputs = Whisper(checkpoint=checkpoint, pad=pad).prepare([utterance])
        assert inputs.tensors["mel"].shape == (1, 1, 80, 3000)
        assert inputs.tensors["frames"].tolist() == [1500]


def test_long_clips_are_rejected_on_demand(checkpoint: str, make_manifest: ManifestMaker) -> None:
    backbone = Whisper(checkpoint=checkpoint, long="reject")
    exact, over = make_manifest([30.0, 30.01])
    assert backbone.prepare([exact]).tensors["frames"].tolist() == [1500]
    with pytest.raises(UtteranceError, match=r"lasts 30.01 s; expected at most 30 s"):
        backbone.prepare([exact, over])


def test_front_end_of_another_size_is_refused(tmp_path: Path, checkpoint: str) -> None:
    from transformers import WhisperFeatureExtractor

    whisper.write(tmp_path, bands=128)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"feature_size 80; expected 128"):
        Whisper(checkpoint=str(tmp_path))
    with pytest.raises(ParamsError, match=r"layer 4 .*it has 3 layers"):
        Whisper(checkpoint=checkpoint, layer=4)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    text_encoder.write(tmp_path, **text_encoder.SIZES)
    with pytest.raises(CheckpointError, match=r"cannot be used.*preprocessor_config"):
        Whisper(checkpoint=str(tmp_path))


def test_layers_have_identities(checkpoint: str) -> None:
    found = [Whisper(checkpoint=checkpoint, layer=n).provenance() for n in (-1, 1)]
    assert len({provenance["weights_sha256"] for provenance in found}) == 2
    assert [provenance["layer"] for provenance in found] == [3, 1]


def test_parameter_count_of_large_v3() -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20}
    with torch.device("meta"):
        network = WhisperEncoder(WhisperConfig(**sizes, encoder_ffn_dim=5120, num_mel_bins=128))
    assert sum(p.numel() for p in network.parameters()) == 636_968_960
