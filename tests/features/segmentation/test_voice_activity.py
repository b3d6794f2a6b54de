"""Silero VAD equals the public code, and finds utterances in real and in synthesised speech."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor
from typer.testing import CliRunner

from features.audio.read import read_audio
from features.corpora._demo.plan import plan
from features.corpora._demo.synthesis import synthesise
from features.errors import CheckpointError, MachineError
from features.networks import silero
from features.segmentation import voice_activity
from features.segmentation.hearing import hear
from features.segmentation.voice_activity import SpeechDetector, load, speech_spans
from pipeline.command_line.app import app
from tests.conftest import RATE
from tests.support.paths import SHARED

pytestmark = pytest.mark.embedded
SPEC = importlib.util.find_spec("silero_vad")
RAVDESS = SHARED / "data" / "ravdess"
needs_weights = pytest.mark.skipif(SPEC is None, reason="package silero-vad is not installed")
Samples = NDArray[np.float32]


def package() -> Path:
    assert SPEC is not None
    assert SPEC.submodule_search_locations
    return Path(SPEC.submodule_search_locations[0])


def our_names(public: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the public TorchScript archive under the names of the safetensors file."""
    found = {"stft_conv.weight": public["stft.forward_basis_buffer"]}
    for name, value in public.items():
        *_, layer, kind = name.split(".")
        if name.startswith("encoder."):
            found[f"conv{int(name.split('.')[1]) + 1}.{kind}"] = value
        elif layer == "rnn":
            found[f"lstm_cell.{kind}"] = value
        elif name.startswith("decoder."):
            found[f"final_conv.{kind}"] = value
    return found


@needs_weights
def test_the_network_is_the_public_one_window_by_window() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public = torch.jit.load(package() / "data" / "silero_vad.jit")  # type: ignore[no-untyped-call]
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(0, 0.3, 60), silero.WINDOW)
    samples = torch.from_numpy((level * rng.standard_normal(len(level))).astype(np.float32))
    with torch.inference_mode():
        theirs = torch.cat([public(w, RATE)[0] for w in samples.view(-1, silero.WINDOW)])
        network = silero.build(our_names(public._model.state_dict()), "public")
        padded = torch.cat([torch.zeros(silero.CONTEXT), samples])
        ours, _ = network(padded)
        cut = 23 * silero.WINDOW
        first, state = network(padded[: silero.CONTEXT + cut])
        second, _ = network(padded[cut:], state)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(torch.cat([first, second]), ours, atol=1e-6)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_activity, "MODULE", "no_such_package")
    with pytest.raises(MachineError, match=r"pip install -e '\.\[vad\]'"):
        load()


@needs_weights
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_activity, "SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"pip install silero-vad==6\.2\.3"):
        load()


def test_spans_begin_and_end_at_two_thresholds() -> None:
    probabilities = np.array([0.4, 0.5, 0.36, 0.34, 0.4, 0.9], np.float32)
    spans = list(speech_spans(probabilities, 0.5))
    assert spans == [pytest.approx((0.032, 0.096)), pytest.approx((0.160, 0.192))]
    assert list(speech_spans(probabilities[:1], 0.5)) == []
    assert list(speech_spans(probabilities[:0], 0.5)) == []


@needs_weights
def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    ticks: list[float] = []
    whole = hear(tmp_path / "a.wav", SpeechDetector(load()), ticks.append)
    assert len(whole.levels) == len(whole.speech) == 32  # the last of them is padded
    assert sum(ticks) == pytest.approx(32 * 0.032)
    blocks = np.split(samples, [100, 5000, 5001])
    monkeypatch.setattr("features.segmentation.hearing.audio_blocks", lambda _: iter(blocks))
    parts = hear(tmp_path / "a.wav", SpeechDetector(load()), ticks.append)
    assert np.allclose(parts.levels, whole.levels, atol=1e-8)
    assert np.allclose(parts.speech, whole.speech, atol=1e-5)


def test_two_hours_take_no_more_memory_than_their_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.zeros(2**20, np.float32)
    blocks = 2 * 3600 * RATE // len(block)
    monkeypatch.setattr(
        "features.segmentation.hearing.audio_blocks", lambda _: (block for _ in range(blocks))
    )
    tracemalloc.start()
    try:
        heard = hear(Path("long.wav"), None, lambda _: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(heard.levels) * silero.WINDOW == blocks * len(block)
    assert peak < 4 * block.nbytes + 8 * heard.levels.nbytes < 30e6


def talk(clips: Sequence[Samples], path: Path) -> list[tuple[float, float]]:
    """Write clips with silences of 1 to 3 s between; returns where the sound of each is."""
    rng = np.random.default_rng(0)
    parts: list[Samples] = []
    spans, here = [], 0
    for clip in clips:
        gap = np.zeros(int(rng.uniform(1, 3) * RATE), np.float32)
        parts += [gap, clip]
        here += len(gap)
        power = np.convolve(clip**2, np.ones(320) / 320, "same")
        loud = np.flatnonzero(power > power.max() / 1000)  # -30 dB
        spans.append(((here + loud[0]) / RATE, (here + loud[-1]) / RATE))
        here += len(clip)
    soundfile.write(path, np.concatenate(parts), RATE)
    return spans


def found_alone(folder: Path, spans: Sequence[tuple[float, float]]) -> int:
    """Number of spans that overlap a single utterance of `heronry segment`, and it no other."""
    table = folder / "manifest.csv"
    done = CliRunner().invoke(app, ["segment", str(folder / "talk.flac"), "--out", str(table)])
    assert done.exit_code == 0, done.output
    with table.open(newline="") as file:
        found = [(float(row["start"]), float(row["stop"])) for row in csv.DictReader(file)]
    hits = np.array([[min(b, d) > max(a, c) for c, d in found] for a, b in spans])
    return int(((hits.sum(1) == 1) & hits[:, hits.sum(0) == 1].any(1)).sum())


@needs_weights
@pytest.mark.real_data
@pytest.mark.skipif(not RAVDESS.exists(), reason="the recordings of RAVDESS are not here")
def test_acted_utterances_are_found(tmp_path: Path) -> None:
    """Of every actor four emotions, the loudest and the quietest among them."""
    clips = [
        read_audio(path)
        for actor in sorted(RAVDESS.iterdir())
        for emotion in (2, 4, 5, 6)
        for path in sorted(actor.glob(f"03-01-0{emotion}-01-01-01-*.flac"))
    ]
    assert len(clips) >= 40
    spans = talk(clips, tmp_path / "talk.flac")
    assert found_alone(tmp_path, spans) >= 0.95 * len(spans)


@needs_weights
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="package espeakng-loader is missing: install requirements/embedded.txt",
)
def test_synthesised_utterances_are_found(tmp_path: Path) -> None:
    planned = [each for each in plan(48, 0) if each.place != "alone"][:16]
    planned = [dataclasses.replace(each, sound=None) for each in planned]
    synthesise(planned, 0, tmp_path)
    spans = talk([read_audio(tmp_path / f"{p.id}.flac") for p in planned], tmp_path / "talk.flac")
    assert found_alone(tmp_path, spans) >= 0.9 * len(spans)
