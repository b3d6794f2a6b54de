"""CED on chunks and batches: padding and batch-mates change nothing; layers, poolings, limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from features.backbone.base import Pooled
from features.backbone.entry import backbone_entry
from features.backbones.ced import CED, PASS
from features.errors import ParamsError, UtteranceError
from features.networks.ced import CHUNK, HOP, MELS, frame_count
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.ced import inputs_of, random_mel, tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny(tmp_path_factory.mktemp("ced_tiny"))["checkpoint"])


@pytest.fixture(scope="module")
def backbone(checkpoint: str) -> CED:
    return CED(checkpoint=checkpoint)


# --- chunks ------------------------------------------------------------------------------------


def test_a_full_last_chunk_is_kept(backbone: CED, make_manifest: ManifestMaker) -> None:
    """The public code drops it."""
    (utterance,) = make_manifest([(2 * CHUNK - 1) * HOP / 16_000])
    inputs = backbone.prepare([utterance])
    assert inputs.tensors["frames"].tolist() == [2 * CHUNK]
    assert inputs.tensors["mel"].shape == (1, 2, MELS, CHUNK)
    mel = inputs.tensors["mel"][0]
    with torch.inference_mode():
        (frames,) = backbone(inputs).unpad()
        chunks = [backbone(inputs_of(chunk)).unpad()[0] for chunk in mel]
        mean = backbone.pooled(inputs)[0]
    assert torch.allclose(frames, torch.cat(chunks), atol=1e-5)
    assert torch.allclose(mean, torch.cat(chunks).mean(0), atol=1e-5)
    assert not torch.allclose(mean, chunks[0].mean(0), atol=1e-3)


def test_a_part_of_a_clip_is_its_frames_in_chunks_of_its_own(
    backbone: CED, make_manifest: ManifestMaker
) -> None:
    """Cut out of the spectrum, also across the chunks of the whole; all of it is what it was."""
    clips = make_manifest([25.0, 4.0])
    inputs = backbone.prepare(clips)
    mel, frames = inputs.tensors["mel"], inputs.tensors["frames"]
    same = backbone.cropped(inputs, torch.zeros_like(frames), frames)
    assert all(torch.equal(same.tensors[name], tensor) for name, tensor in inputs.tensors.items())
    parts = backbone.cropped(inputs, torch.tensor([900, 20]), torch.tensor([300, 100]))
    assert parts.ids == inputs.ids
    assert parts.tensors["frames"].tolist() == [300, 100]
    cut = parts.tensors["mel"]
    assert cut.shape == (2, 1, MELS, 300)
    assert torch.equal(cut[0, 0], torch.cat([mel[0, 0, :, 900:], mel[0, 1, :, :188]], dim=1))
    assert torch.equal(cut[1, 0, :, :100], mel[1, 0, :, 20:120])
    assert not cut[1, 0, :, 100:].any()


@pytest.mark.parametrize(
    ("frames", "kept"),
    [(16, 1), (31, 1), (32, 2), (1011, 63), (1012, 63), (1013, 64), (1028, 64), (1029, 65)],
)
def test_frames_are_the_patches_that_hold_sound(frames: int, kept: int, backbone: CED) -> None:
    with torch.inference_mode():
        assert len(backbone(inputs_of(random_mel(frames))).unpad()[0]) == kept


def test_the_padded_tail_is_in_the_mean_only(backbone: CED) -> None:
    """Changing how the tail is padded would change the mean; the frames kept are the clip's."""
    mel = random_mel(CHUNK + 100)
    # What becomes 0 in the batch norm.
    norm = backbone.network.init_bn
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    zero = norm.running_mean - norm.bias / norm.weight * (norm.running_var + norm.eps).sqrt()
    tail = torch.cat([mel[:, CHUNK:], zero[:, None].expand(-1, CHUNK - 100)], dim=1)
    with torch.inference_mode():
        (frames,) = backbone(inputs_of(mel)).unpad()
        (padded,) = backbone(inputs_of(tail)).unpad()
        mean = backbone.pooled(inputs_of(mel))[0]
        first = backbone.pooled(inputs_of(mel[:, :CHUNK]))[0]
    assert len(frames) == 63 + 7
    assert torch.allclose(frames[63:], padded[:7], atol=1e-4)
    assert torch.allclose(mean, (first + padded.mean(0)) / 2, atol=1e-4)


def test_padding_and_batch_mates_change_nothing(checkpoint: str) -> None:
    """In float64 to its last digits, so that float32 can differ by rounding only."""
    double = CED(checkpoint=checkpoint, layer="all")
    double.network.double()
    lengths = [301, 16, 1012, 2024, 1100, 40]
    mels = [random_mel(length, seed=length).double() for length in lengths]
    with torch.inference_mode():
        together = double(inputs_of(*mels)).unpad()
        means = double.pooled(inputs_of(*mels))
        for mel, frames, mean in zip(mels, together, means, strict=True):
            (alone,) = double(inputs_of(mel)).unpad()
            assert frames.shape == alone.shape
            assert torch.allclose(frames, alone, atol=1e-11)
            assert torch.allclose(mean, double.pooled(inputs_of(mel))[0], atol=1e-11)


def test_padded_frames_are_zero(backbone: CED) -> None:
    with torch.inference_mode():
        stream = backbone(inputs_of(random_mel(301), random_mel(1100), random_mel(20)))
    assert stream.mask.sum(1).tolist() == [18, 69, 1]
    assert not bool(stream.values[~stream.mask].any())


def test_the_floor_is_that_of_each_clip(backbone: CED, make_manifest: ManifestMaker) -> None:
    """A clip 100 dB below its batch-mate reaches below the floor that the louder one has."""
    time = np.arange(8000) / 16_000
    utterances = []
    for utterance, gain in zip(make_manifest([0.5, 0.5]), (1.0, 1e-5), strict=True):
        assert utterance.audio is not None
        wave = gain * np.sin(2 * np.pi * 300 * time)
        soundfile.write(utterance.audio, wave, 16_000, subtype="FLOAT")
        utterances.append(dataclasses.replace(utterance, sha256=None))
    loud, quiet = backbone.prepare(utterances).tensors["mel"]
    assert float(loud.max() - loud.min()) <= 120 + 1e-4
    assert float(quiet.min()) < float(loud.max()) - 120 - 10
    assert torch.equal(quiet, backbone.prepare(utterances[1:]).tensors["mel"][0])


def test_a_long_file_is_computed_a_few_chunks_at_a_time(
    backbone: CED, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is divided into passes, the numbers equal those of one pass."""
    inputs = inputs_of(random_mel(CHUNK * 10 + 300), random_mel(700))
    sizes: list[int] = []
    handle = backbone.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with torch.inference_mode():
        few, means = backbone(inputs).unpad(), backbone.pooled(inputs)
        monkeypatch.setitem(PASS, "cpu", 100 * CHUNK)
        at_once, means_at_once = backbone(inputs).unpad(), backbone.pooled(inputs)
    handle.remove()
    assert sizes == [8, 4, 8, 4, 12, 12]  # each time for states and for means
    for ours, theirs in zip(few, at_once, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
    assert torch.allclose(means, means_at_once, atol=1e-5)


# --- the backbone ------------------------------------------------------------------------------


def test_layers_are_the_networks_states(checkpoint: str) -> None:
    """A network cut after layer k gives state k of the whole one."""
    inputs = inputs_of(random_mel(301), random_mel(100))
    every = CED(checkpoint=checkpoint, layer="all")
    assert (every.spec.dim, every.spec.layers) == (3 * 192, 3)
    with torch.inference_mode():
        stacked = every(inputs).values
        for layer in range(3):
            one = CED(checkpoint=checkpoint, layer=layer)
            assert torch.allclose(one(inputs).values, stacked[..., 192 * layer :][..., :192])
            assert len(one.network.blocks) == layer  # type: ignore[arg-type]
            assert one.pooled(inputs).shape == (2, 192)
        pair = CED(checkpoint=checkpoint, layer=[2, 0])
        assert torch.equal(pair(inputs).values[..., :192], stacked[..., 384:])
    assert pair.provenance()["layer"] == [2, 0]
    with pytest.raises(ParamsError, match=r"layer 3 .*it has 2 layers"):
        CED(checkpoint=checkpoint, layer=3)


def test_too_short_audio_is_rejected(backbone: CED, make_manifest: ManifestMaker) -> None:
    short, enough = make_manifest([2399 / 16_000, 2400 / 16_000])
    with pytest.raises(UtteranceError, match=r"has 2399 samples at 16 kHz.*at least 2400"):
        backbone.prepare([short])
    inputs = backbone.prepare([enough])
    assert inputs.tensors["frames"].tolist() == [16] == [frame_count(2400)]
    with torch.inference_mode():
        assert len(backbone(inputs).unpad()[0]) == 1


def test_mean_and_deviation_are_those_of_the_frames(backbone: CED) -> None:
    """Of the same frames, where the mean alone counts the padded tail too."""
    inputs = inputs_of(random_mel(CHUNK + 100))
    with torch.inference_mode():
        (frames,) = backbone(inputs).unpad()
        found = Pooled(backbone, "mean_std")(inputs).values[0, 0]
        public = Pooled(backbone, "mean")(inputs).values[0, 0]
    expected = torch.cat([frames.mean(0), frames.std(0, correction=0)])
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found[: len(public)], public, atol=1e-3)


@pytest.mark.parametrize("pooling", ["frames", "mean", "first"])
def test_an_entry_needs_only_its_checkpoint(
    pooling: str, checkpoint: str, make_manifest: ManifestMaker
) -> None:
    entry = backbone_entry(
        "ced_tiny", {"kind": "ced", "checkpoint": checkpoint, "pooling": pooling}
    )
    built = entry.build()
    with torch.inference_mode():
        (values,) = built(built.prepare(list(make_manifest([1.0])))).unpad()
    assert values.shape == ((6, 192) if pooling == "frames" else (1, 192))
    assert built.spec.hop_seconds == (0.16 if pooling == "frames" else None)


def test_gradients_reach_every_parameter(checkpoint: str) -> None:
    built = CED(checkpoint=checkpoint)
    assert not any(parameter.requires_grad for parameter in built.network.parameters())
    built.network.requires_grad_(requires_grad=True)
    built.pooled(inputs_of(random_mel(301), random_mel(100))).square().sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in built.network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
