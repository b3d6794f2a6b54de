"""Long recordings in windows: the same rows, however they are batched or resumed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.memory import peak_mib
from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry, backbone_entry
from features.backbone.windows import Window
from features.backbones.tone import Tone
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.errors import MachineError
from features.extraction.extract import Options, extract
from features.extraction.forecast import Forecast
from features.files.reading import file_sha256
from features.stream import Stream
from tests.conftest import RATE, ManifestMaker
from tests.support.paths import contents_of

SECONDS = [0.5, 5.3, 1.0, 2.05, 7.0, 0.3]
WINDOWS = {"long": "window", "window_seconds": 2, "window_hop_seconds": 1.1}
BATCHES = (Options(), Options(batch_seconds=7.0), Options(batch_seconds=1e6))


def windowed(kind: str = "tone", **more: Any) -> BackboneEntry:
    return backbone_entry("x", {"kind": kind, **WINDOWS, **more})


@pytest.mark.parametrize("pooling", ["frames", "mean", "first", "std", "mean_std"])
@pytest.mark.parametrize("kind", ["tone", "f0"])
def test_rows_are_what_the_backbone_gives(
    make_manifest: ManifestMaker, tmp_path: Path, kind: str, pooling: str
) -> None:
    if kind == "f0" and pooling != "frames":
        pytest.skip("bins are not pooled")
    manifest, entry = make_manifest(SECONDS), windowed(kind, pooling=pooling, store_dtype="float32")
    backbone = entry.build()
    live = {}
    with torch.inference_mode():
        for utterance in manifest:
            (live[utterance.id],) = backbone(backbone.prepare([utterance])).unpad()
    for number, options in enumerate(BATCHES):
        out, store = tmp_path / f"out{number}", tmp_path / f"store{number}"
        done = extract(manifest, entry, out, store=store, options=options)
        assert (done.computed, done.rejected) == (len(SECONDS), {})
        reader = CacheReader(out, verify=True)
        assert reader.spec == backbone.spec
        for id, expected in live.items():
            assert reader[id].shape == expected.shape
            np.testing.assert_allclose(reader[id], expected.numpy(), rtol=1e-6, atol=1e-6)


def test_rows_are_those_of_whole_recordings(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    """Of a backbone whose frames depend on nothing far away, rounded as those are, to the bit."""
    manifest = make_manifest(SECONDS)
    extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "store")
    extract(manifest, BackboneEntry("x", "tone"), tmp_path / "whole", store=tmp_path / "store")
    found, expected = CacheReader(tmp_path / "out"), CacheReader(tmp_path / "whole")
    assert len(found.shards) == len(expected.shards) > 1
    for one, other in zip(found.shards, expected.shards, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.rounding, other.rounding)
        assert one.ids == other.ids


@pytest.mark.parametrize("options", [Options(), Options(batch_seconds=4.4)])
def test_resumed_equals_uninterrupted(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Options
) -> None:
    """Also where it ends within a recording, of which nothing is left behind."""
    manifest, calls, last_call = make_manifest(SECONDS), 0, 5 if options.batch_seconds else 8
    extract(manifest, windowed(), tmp_path / "whole", store=tmp_path / "one", options=options)

    class Killed(Tone):
        def __call__(self, inputs: Inputs) -> Stream:
            nonlocal calls
            calls += 1
            if calls == last_call:
                raise OSError(28, "No space left on device")
            return super().__call__(inputs)

    with monkeypatch.context() as broken:
        broken.setattr("features.backbones.tone.build", Killed)
        with pytest.raises((MachineError, OSError)):
            extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "two", options=options)
    done = extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "two", options=options)
    assert done.linked > 0
    assert done.computed > 0
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "whole")
    names = {path.suffix for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert names == {"", ".h5", ".index", ".json"}


def test_equal_recordings_are_computed_once_and_copied(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    one = make_manifest([5.0])
    twice = [dataclasses.replace(one[0], id=id) for id in "ab"]
    manifest = dataclasses.replace(one, utterances=tuple(twice), shard_seconds=20.0)
    done = extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "store")
    assert (done.computed, done.copied) == (1, 1)
    reader = CacheReader(tmp_path / "out")
    assert np.array_equal(reader["a"], reader["b"])
    other = dataclasses.replace(manifest, utterances=(*twice, *make_manifest([0.5], start=7)))
    done = extract(other, windowed(), tmp_path / "other", store=tmp_path / "store")
    assert (done.computed, done.copied) == (1, 2)


class Shallow(Tone):
    """A device whose memory takes 3 s of audio in all, or as much as `most`."""

    most = 3.0

    def __call__(self, inputs: Inputs) -> Stream:
        rows, samples = inputs.tensors["samples"].shape
        if rows * samples / RATE > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return super().__call__(inputs)


@pytest.mark.parametrize("options", BATCHES)
def test_what_does_not_fit_whole_fits_in_windows(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Options
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Shallow)
    manifest, plain = make_manifest(SECONDS), BackboneEntry("x", "tone")
    done = extract(manifest, plain, tmp_path / "out", store=tmp_path / "one", options=options)
    assert list(done.rejected) == ["u1", "u4"]
    assert "by itself (7.0 s of audio): set `long: window`" in done.rejected["u4"]
    assert done.computed == len(SECONDS) - 2
    done = extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "two", options=options)
    assert (done.computed, done.rejected) == (len(SECONDS), {})


@pytest.mark.parametrize("options", BATCHES)
@pytest.mark.parametrize("pooling", ["frames", "mean"])
def test_a_window_that_does_not_fit_rejects_its_recording_alone(
    make_manifest: ManifestMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: Options,
    pooling: str,
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Shallow)
    monkeypatch.setattr(Shallow, "most", 1.99)
    entry = windowed(pooling=pooling, store_dtype="float32")
    manifest = make_manifest(SECONDS)
    done = extract(manifest, entry, tmp_path / "out", store=tmp_path / "store", options=options)
    assert list(done.rejected) == ["u1", "u3", "u4"]
    reason = "(a window of 2.0 s of audio): set `window_seconds` in the backbone's entry to less"
    assert reason in done.rejected["u1"]
    monkeypatch.setattr(Shallow, "most", 1e6)
    done = extract(manifest, entry, tmp_path / "out", store=tmp_path / "store", options=options)
    assert not done.rejected


class Spoilt(Tone):
    """Gives no finite frames of one window, of a recording in the middle."""

    def prepare(self, utterances: Any) -> Inputs:
        inputs = super().prepare(utterances)
        for row, utterance in enumerate(utterances):
            if isinstance(utterance, Window) and utterance.id == "u1" and utterance.part[0]:
                inputs.tensors["samples"][row, 0] = torch.nan
        return inputs


@pytest.mark.parametrize("options", BATCHES)
def test_a_recording_with_a_bad_window_is_rejected_alone(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Options
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Spoilt)
    manifest = dataclasses.replace(make_manifest(SECONDS), shard_seconds=100.0)
    done = extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "one", options=options)
    assert done.rejected == {"u1": "its features are not finite"}
    assert done.computed == len(SECONDS) - 1
    reference, plain = CacheReader(tmp_path / "out"), BackboneEntry("x", "tone")
    monkeypatch.undo()
    extract(manifest, plain, tmp_path / "whole", store=tmp_path / "two")
    whole = CacheReader(tmp_path / "whole")
    assert all(np.array_equal(reference[id], whole[id]) for id in reference)


def test_a_file_that_ends_early_is_rejected(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    """Though its first windows are there."""
    manifest = make_manifest(SECONDS)
    long = manifest[4]
    assert long.audio is not None
    soundfile.write(long.audio, np.zeros(3 * RATE), RATE)
    cut = dataclasses.replace(long, sha256=file_sha256(Path(long.audio)))
    rows = [cut if u.id == cut.id else u for u in manifest]
    manifest = dataclasses.replace(manifest, utterances=tuple(rows))
    done = extract(manifest, windowed(), tmp_path / "out", store=tmp_path / "store")
    assert list(done.rejected) == ["u4"]
    assert done.rejected["u4"] == "ends at 3.000 s, earlier than the manifest says"


@pytest.fixture
def recordings(tmp_path: Path) -> dict[int, Manifest]:
    """A minute and ten minutes of noise, by their seconds."""
    found = {}
    for seconds in (60, 600):
        path = tmp_path / f"{seconds}.wav"
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, seconds * RATE).astype(np.float32)
        soundfile.write(path, noise, RATE, subtype="PCM_16")
        row = Utterance("a", str(path), file_sha256(path), seconds=float(seconds))
        found[seconds] = Manifest("noise", (row,))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("pooling", ["frames", "mean_std"])
def test_memory_does_not_grow_with_the_length(
    recordings: dict[int, Manifest], tmp_path: Path, pooling: str
) -> None:
    entry, out, peaks = windowed(dim=512, pooling=pooling), tmp_path / "out", {}
    options = Options(workers=0)  # or the longer one would start some
    extract(recordings[60], entry, out, store=tmp_path / "first", options=options)  # imports
    for seconds, manifest in recordings.items():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is now's
        extract(manifest, entry, out, store=tmp_path / str(seconds), options=options)
        peaks[seconds] = peak_mib()
    # Ten minutes are 37 MiB at 16 kHz, and their frames 29 MiB.
    assert peaks[600] < peaks[60] + 12


def test_the_forecast_knows_about_windows(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    told: list[Forecast] = []
    options = Options(announce=told.append)
    for pooling in ("frames", "mean"):
        entry = windowed(window_pooling=pooling)
        out, store = tmp_path / pooling, tmp_path / "store"
        extract(make_manifest([11.0] * 3), entry, out, store=store, options=options)
    assert [forecast.compute for forecast in told] == [3, 3]
    assert [forecast.bytes for forecast in told] == [3 * 550 * 16, 3 * 10 * 16]
