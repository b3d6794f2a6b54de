"""Speech networks of the wav2vec 2.0 family equal transformers', and padding changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from features.backbones import _wav2vec2
from features.backbones._wav2vec2 import MaskedGroupNorm
from features.backbones.speech_encoder import SpeechEncoder
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError
from features.weights.identity import weights_sha256
from features.weights.tensors import read_tensors
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import speech_encoder, whisper
from tests.support.machines.live_memory import peak_bytes


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("speech")
    for name, write in speech_encoder.VARIANTS.items():
        write(root / name)
    return {name: root / name for name in speech_encoder.VARIANTS}


def transformers_states(folder: Path, samples: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states of the untouched network, the last one after the final norm, `[B, T, D]`."""
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = network(samples, output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def frames_of(backbone: SpeechEncoder, utterances: list[Utterance]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


@pytest.mark.slow
@pytest.mark.parametrize("variant", speech_encoder.VARIANTS)
def test_states_are_those_of_transformers_bit_for_bit(
    variant: str, folders: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    (utterance,) = make_manifest([0.7])
    checkpoint = str(folders[variant])
    whole = SpeechEncoder(checkpoint=checkpoint)
    expected = transformers_states(folders[variant], whole.prepare([utterance]).tensors["samples"])
    assert len(expected) == 4
    for layer in range(4):
        (frames,) = frames_of(SpeechEncoder(checkpoint=checkpoint, layer=layer), [utterance])
        assert torch.equal(frames, expected[layer][0])
        (same,) = frames_of(SpeechEncoder(checkpoint=checkpoint, layer=layer - 4), [utterance])
        assert torch.equal(frames, same)
    (stack,) = frames_of(SpeechEncoder(checkpoint=checkpoint, layer=[3, 1]), [utterance])
    assert torch.equal(stack, torch.cat([expected[3], expected[1]], dim=-1)[0])


@pytest.mark.parametrize("variant", ["hubert_group", "wavlm_group", "wav2vec2_group"])
def test_padding_would_change_group_norm_models(
    variant: str, folders: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    """In transformers padding changes states by as much as their size; here it does not."""
    long, short = make_manifest([1.5, 0.3])
    backbone = SpeechEncoder(checkpoint=str(folders[variant]))
    (alone,) = frames_of(backbone, [short])
    samples = backbone.prepare([long, short]).tensors["samples"]
    naive = transformers_states(folders[variant], samples)[-1][1, : len(alone)]
    scale = float(alone.abs().max())
    assert float((naive - alone).abs().max()) > 0.1 * scale
    ours = frames_of(backbone, [long, short])[1]
    assert float((ours - alone).abs().max()) <= 1e-5 * scale


def test_lengths_do_not_outlive_their_batch(
    folders: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    long, short = make_manifest([1.5, 0.3])
    backbone = SpeechEncoder(checkpoint=str(folders["hubert_group"]))
    (before,) = frames_of(backbone, [short])
    frames_of(backbone, [long, short])
    (after,) = frames_of(backbone, [short])
    assert torch.equal(before, after)


def test_masked_group_norm_is_that_of_each_clip_alone() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(3, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    masked = MaskedGroupNorm.like(norm)
    clips = [torch.randn(6, length) * 3 + 1 for length in (50, 7, 23, 1)]
    batch = torch.full((4, 6, 50), 99.0)
    for row, clip in enumerate(clips):
        batch[row, :, : clip.shape[1]] = clip
    assert torch.equal(masked(batch), norm(batch))
    with masked.given(torch.tensor([50, 7, 23, 1])):
        together = masked(batch)
    for row, clip in enumerate(clips):
        if clip.shape[1] > 1:
            alone = norm(clip[None])[0]
            assert torch.allclose(together[row, :, : clip.shape[1]], alone, atol=1e-5)
    assert bool(together.isfinite().all())
    assert masked.state_dict().keys() == norm.state_dict().keys()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("groups", "channels"), [(48, 48), (6, 12), (3, 6), (1, 4)])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_masked_group_norm_in_blocks_is_the_same_to_the_bit(
    threads: int, groups: int, channels: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients nothing is done in blocks."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(groups, channels)
    nn.init.normal_(norm.weight)
    masked, batch = MaskedGroupNorm.like(norm), torch.randn(rows, channels, 40_001)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with masked.given(torch.tensor([39_000, 40_001, 500][:rows])):
            whole = masked(batch)
            assert whole.requires_grad
            for size in (1, 100_000, 1_000_000):
                monkeypatch.setattr(_wav2vec2, "BLOCK", size)
                with torch.no_grad():
                    assert torch.equal(masked(batch), whole)
    finally:
        torch.set_num_threads(before)


def test_masked_group_norm_needs_little_more_than_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the five copies of its input that its steps would make of the whole."""
    monkeypatch.setattr(_wav2vec2, "BLOCK", 4 * 2 * 1000)
    masked, batch = MaskedGroupNorm.like(nn.GroupNorm(64, 64)), torch.randn(4, 64, 1000)

    def normed() -> torch.Tensor:
        with masked.given(torch.tensor([1000, 900, 800, 700])):
            found: torch.Tensor = masked(batch)
            return found

    with torch.no_grad():
        assert batch.nbytes <= peak_bytes(normed) <= 1.25 * batch.nbytes
        with torch.autocast("cpu", torch.bfloat16):
            assert normed().dtype == torch.float32  # as torch's own group norm
    assert peak_bytes(normed) > 4 * batch.nbytes  # for gradients


@pytest.mark.gpu
def test_masked_group_norm_on_a_gpu_needs_little_more_than_its_result() -> None:
    """And gives what it gives in one piece there, and on a CPU, to rounding."""
    torch.manual_seed(0)
    masked, lengths = MaskedGroupNorm.like(nn.GroupNorm(512, 512)).cuda(), [96_000, 60_000]
    batch = torch.randn(2, 512, 96_000, device="cuda")
    with masked.given(torch.tensor(lengths, device="cuda")):
        whole = masked(batch).detach()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.inference_mode():
            blocks = masked(batch)
        assert torch.cuda.max_memory_allocated() - before < 2.5 * batch.nbytes
    assert torch.allclose(blocks, whole, atol=1e-5)
    with masked.cpu().given(torch.tensor(lengths)), torch.inference_mode():
        assert torch.allclose(blocks.cpu(), masked(batch.cpu()), atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "normalized"), [("hubert_group", True), ("wavlm_group", False)]
)
def test_clips_are_normalised_as_the_checkpoint_says(
    variant: str, normalized: bool, folders: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    backbone = SpeechEncoder(checkpoint=str(folders[variant]))
    inputs = backbone.prepare(list(make_manifest([1.0, 0.4])))
    clip = inputs.tensors["samples"][1, : int(inputs.tensors["lengths"][1])].numpy()
    assert bool((inputs.tensors["samples"][1, len(clip) :] == 0).all())
    assert (abs(clip.std() - 1) < 1e-4) == normalized
    assert backbone.provenance()["front_end"]["do_normalize"] is normalized


def test_frames_follow_the_convolutions(
    folders: dict[str, Path], make_manifest: ManifestMaker
) -> None:
    backbone = SpeechEncoder(checkpoint=str(folders["wav2vec2_layer"]))
    assert backbone.min_samples == 400
    assert backbone.spec.hop_seconds == pytest.approx(0.02)
    lengths = [400, 719, 720, 16000, 8123]
    frames = frames_of(backbone, list(make_manifest([n / 16000 for n in lengths])))
    assert [len(f) for f in frames] == [(n - 400) // 320 + 1 for n in lengths]


def test_weights_that_only_pretraining_needs_may_be_missing(tmp_path: Path) -> None:
    """As in facebook/wav2vec2-base-960h, which has no vector for masked frames."""
    settings = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, **speech_encoder.GROUP}
    speech_encoder.write(tmp_path, "Wav2Vec2", **settings)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mask_time_prob": 0.05}))
    backbone = SpeechEncoder(checkpoint=str(tmp_path))
    assert backbone.provenance()["weights_sha256"] == weights_sha256(backbone.network)


@pytest.mark.parametrize("model", ["Hubert", "Wav2Vec2", "WavLM"])
def test_older_names_of_weights_are_loaded(model: str, tmp_path: Path) -> None:
    """As on the hub: a prefix, a head, old names of weight-normed convolutions, a torch file."""
    speech_encoder.write(tmp_path, model, **speech_encoder.GROUP)
    expected = SpeechEncoder(checkpoint=str(tmp_path)).provenance()["weights_sha256"]
    path = tmp_path / "model.safetensors"
    named = {f"{model.lower()}.{name}": tensor for name, tensor in read_tensors(path).items()}
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        convolution = f"{model.lower()}.encoder.pos_conv_embed.conv"
        named[f"{convolution}.{old}"] = named.pop(f"{convolution}.parametrizations.weight.{new}")
    path.unlink()
    torch.save(named | {"lm_head.weight": torch.zeros(4, 32)}, tmp_path / "pytorch_model.bin")
    assert SpeechEncoder(checkpoint=str(tmp_path)).provenance()["weights_sha256"] == expected


def test_an_adapter_after_the_last_layer_is_removed(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    speech_encoder.write(tmp_path, "Wav2Vec2", add_adapter=True, **speech_encoder.LAYER)
    (frames,) = frames_of(SpeechEncoder(checkpoint=str(tmp_path)), list(make_manifest([1.0])))
    assert len(frames) == 49


def test_other_networks_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    whisper.write(tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"is a whisper; expected one of hubert.*kinds"):
        SpeechEncoder(checkpoint=str(tmp_path / "w"))
    with pytest.raises(ParamsError, match=r"layer 4 .*it has 3 layers"):
        SpeechEncoder(checkpoint=str(folders["data2vec"]), layer=4)


def test_a_missing_or_unfit_front_end_is_refused(tmp_path: Path) -> None:
    speech_encoder.write(tmp_path, "Hubert", **speech_encoder.GROUP)
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"sampling_rate": 8000}))
    with pytest.raises(CheckpointError, match="expected a Wav2Vec2FeatureExtractor of 16000 Hz"):
        SpeechEncoder(checkpoint=str(tmp_path))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"holds no preprocessor_config.json.*put the file"):
        SpeechEncoder(checkpoint=str(tmp_path))


def test_parameter_counts_of_the_public_networks() -> None:
    from transformers import HubertConfig, HubertModel

    with torch.device("meta"):
        network: Any = HubertModel(HubertConfig())
    assert sum(p.numel() for p in network.parameters()) == 94_371_712
    assert np.prod(network.config.conv_stride) == 320
