"""The extraction benchmarks: counts, equality and memory; speed is not tested."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.extraction import table
from benchmarks.extractions.long_recordings import entry_of, make_recording, measured
from benchmarks.memory import peak_mib, small_network
from benchmarks.shared.clips import between, make_clips
from benchmarks.shared.flops import Matmul, flops_of, flops_of_all
from benchmarks.shared.networks import NETWORKS, write_speech
from benchmarks.shared.our_extraction import Ours, Task
from benchmarks.shared.peer_extraction import Peer, compare
from features.backbone.entry import BackboneEntry
from features.backbones._audio import HOP, SAMPLE_RATE
from features.networks import rmvpe
from features.settings.plugins import kinds

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
}
CPU = torch.device("cpu")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A small HuBERT and two clips that differ in length."""
    options = write_speech(tmp_path / "checkpoint", "Hubert", normalize=True, **TINY)
    entry = BackboneEntry("hubert-base", "speech_encoder", options=options)
    manifest = make_clips(tmp_path / "audio", [0.3, 0.5])
    return Task(entry, manifest, "cpu", tmp_path / "hubert-base")


def test_contenders_make_the_same_features(task: Task) -> None:
    ours, peer = Ours(task), Peer(task)
    for _ in range(2):  # the second round has nothing of the first to copy
        assert ours.run() > 0
        assert peer.run() > 0
        assert compare(ours.out, peer.out, task) < 1e-3
    assert len(list(peer.out.iterdir())) == 2


def test_other_features_are_not_timed(task: Task) -> None:
    ours, peer = Ours(task), Peer(task)
    ours.run()
    peer.run()
    features = torch.load(peer.out / "u00001.pt", weights_only=True)
    torch.save(features + 0.01 * features.abs().max(), peer.out / "u00001.pt")
    with pytest.raises(SystemExit, match="nothing to time"):
        compare(ours.out, peer.out, task)
    torch.save(features[:-1], peer.out / "u00001.pt")
    with pytest.raises(SystemExit, match=r"u00001: ours is \(24, 32\)"):
        compare(ours.out, peer.out, task)


def test_native_networks_have_a_peer_too(task: Task) -> None:
    entry = BackboneEntry("tone", "tone", store_dtype="float32")
    tone = dataclasses.replace(task, entry=entry)
    ours, peer = Ours(tone), Peer(tone)
    ours.run()
    peer.run()
    assert compare(ours.out, peer.out, tone) < 1e-6


def test_flops_are_those_of_the_architecture(task: Task) -> None:
    backbone, clip = task.entry.build(), task.manifest[0]
    samples, frames = round(0.3 * SAMPLE_RATE), int(0.3 * SAMPLE_RATE - 400) // HOP + 1
    convolutions, channels = 0, 1
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        samples = (samples - kernel) // stride + 1
        convolutions += samples * channels * 16 * kernel
        channels = 16
    assert samples == frames
    positions = (frames + 1) * 32 * (32 // 16) * 128  # groups of 2; one frame is cut off again
    linear = frames * (16 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 48))
    attention = 2 * 2 * frames * frames * 32  # of 2 layers: scores, and their product with values
    expected = 2 * (convolutions + positions + linear + attention)
    assert flops_of(backbone, clip, CPU) == expected
    assert flops_of_all(backbone, task.manifest, CPU) > 2 * expected


def test_recurrent_layers_and_fused_attention_are_counted() -> None:
    network = torch.nn.GRU(3, 5, batch_first=True)
    backbone = BackboneEntry("tone", "tone").build()
    counted = _Around(backbone, network)
    assert flops_of(counted, None, CPU) == 2 * 7 * 3 * 5 * (3 + 5) + 4 * 7 * 7 * 5  # type: ignore[arg-type]


def test_the_unet_is_counted() -> None:
    """By hand, place by place: convolutions (some run as products), transposed ones, GRU, linear.

    A transposed convolution multiplies each input by all of its weights.
    """
    channels, places, total = 1, 64 * 128, 0
    inner = []
    for width in rmvpe.CHANNELS:
        total += places * (9 * channels * width + channels * width + 7 * 9 * width**2)
        inner.append((width, places))
        channels, places = width, places // 4
    total += places * (9 * 256 * 512 + 256 * 512 + 31 * 9 * 512**2)
    channels = 512
    for width, above in reversed(inner):
        total += places * 9 * channels * width
        total += above * (9 * 2 * width * width + 2 * width * width + 7 * 9 * width**2)
        channels, places = width, above
    total += places * 9 * 16 * 3 + 64 * (2 * 3 * 256 * (384 + 256) + 512 * 360)
    backbone = _Salience()
    assert flops_of(backbone, None, CPU) == 2 * total  # type: ignore[arg-type]


class _Salience:
    """RMVPE's network alone, over 64 frames."""

    def __init__(self) -> None:
        self.network = rmvpe.build()

    def prepare(self, _: object) -> torch.Tensor:
        return torch.zeros(1, rmvpe.N_MELS, 64)

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        salience: torch.Tensor = self.network(mel)
        return salience


class _Around:
    """A backbone of a recurrent layer and attention over seven frames."""

    def __init__(self, backbone: object, network: torch.nn.GRU) -> None:
        self.backbone, self.network = backbone, network

    def prepare(self, _: object) -> torch.Tensor:
        return torch.zeros(1, 7, 3)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        states, _ = self.network(frames)
        return torch.nn.functional.scaled_dot_product_attention(states, states, states)


def test_matmul_is_a_plausible_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Matmul.__init__.__globals__["SIZES"], "cpu", (64,))
    assert 1e-16 < Matmul(CPU, torch.float32).seconds_per_flop() < 1e-6


def test_every_network_is_of_a_kind_that_exists() -> None:
    assert {network.kind for network in NETWORKS.values()} <= set(kinds("features.backbones"))


def test_clips_differ(tmp_path: Path) -> None:
    durations = between(0.1, 0.3, 4)
    manifest = make_clips(tmp_path / "audio", durations)
    assert len({utterance.audio_content for utterance in manifest}) == 4
    assert len({utterance.text_content for utterance in manifest}) == 4
    assert all(0.1 <= seconds <= 0.3 for seconds in durations)
    assert between(5.0, 5.0, 2) == [5.0, 5.0]


def test_peak_memory_grows_with_what_is_held(tmp_path: Path) -> None:
    before = peak_mib()
    held = torch.ones(2**30 // 4)
    assert peak_mib() >= before
    assert peak_mib() > held.nbytes / 2**20
    assert small_network(tmp_path / "network").build().spec.dim == 512


def test_table_shows_all_that_was_found() -> None:
    measured = {
        "ratio_to_peer": {"median": 1.25, "range": [1.0, 1.5]},
        "fraction_of_peak": None,
        "clips_per_second": 7.5,
        "audio_seconds_per_second": None,
        "bytes_ratio": 1.99,
        "peak_mib": {"ours": {"resident": 900.3}, "peer": {"resident": 738.8, "device": 12.0}},
    }
    result = {
        "clips": 2,
        "seconds": "5",
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "backbones": {"hubert-base": measured, "f0-harvest": {"skipped": "pyworld is missing"}},
    }
    text = table(result, "goals: none")
    for part in ("1.25 [1.0, 1.5]", "7.5", "1.99", "900, 739 + 12", "pyworld is missing"):
        assert part in text


def test_a_long_recording_is_measured_once_it_is_extracted(tmp_path: Path) -> None:
    manifest = make_recording(tmp_path / "long.wav", 1)
    found = measured(entry_of("logmel", tmp_path, whole=False), manifest, tmp_path)
    assert found["peak_mib"] > 0
    assert found["cpu_seconds_per_hour"] > 0
    assert measured(entry_of("logmel", tmp_path, whole=True), manifest, tmp_path)
