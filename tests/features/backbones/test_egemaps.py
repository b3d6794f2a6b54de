"""eGeMAPS is what openSMILE gives of the same samples, by its names, and nothing but numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import opensmile
import pytest
import soundfile
import torch

from features.backbone.entry import backbone_entry, fingerprint
from features.backbones._audio import waveform
from features.backbones.egemaps import Egemaps
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError, UtteranceError
from features.extraction.extract import extract
from features.extraction.sizes import Sizes
from pipeline.costs.features import stream_of
from tests.conftest import RATE, ManifestMaker


@pytest.fixture(scope="module")
def backbone() -> Egemaps:
    return Egemaps()


def vectors_of(backbone: Any, utterances: list[Utterance]) -> torch.Tensor:
    stream = backbone(backbone.prepare(utterances))
    assert stream.values.shape == (len(utterances), 1, 88)
    assert bool(stream.mask.all())
    return stream.values[:, 0]  # type: ignore[no-any-return]


def named(backbone: Egemaps, vector: torch.Tensor) -> dict[str, float]:
    return dict(zip(backbone.provenance()["features"], vector.tolist(), strict=True))


def test_values_are_those_of_opensmile_by_their_names(
    backbone: Egemaps, make_manifest: ManifestMaker
) -> None:
    """Of its documented interface, a table of one row; the pitch is that of the tone."""
    utterances = list(make_manifest([1.0, 0.7], start=2))  # 180 Hz first
    functionals = opensmile.FeatureLevel.Functionals
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, functionals)
    for utterance, vector in zip(utterances, vectors_of(backbone, utterances), strict=True):
        table = smile.process_signal(waveform(utterance), RATE)
        assert named(backbone, vector) == table.iloc[0].to_dict()
    semitones = named(backbone, vectors_of(backbone, utterances[:1])[0])
    pitch = 27.5 * 2 ** (semitones["F0semitoneFrom27.5Hz_sma3nz_amean"] / 12)
    assert pitch == pytest.approx(180, rel=0.02)


def test_any_rate_and_channels_are_read_as_16_khz_mono(backbone: Egemaps, tmp_path: Path) -> None:
    time = np.arange(48_000) / 48_000
    tone = 0.3 * np.sin(2 * np.pi * 200 * time) * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))
    soundfile.write(tmp_path / "mono.wav", tone, 48_000, subtype="FLOAT")
    soundfile.write(tmp_path / "both.wav", np.stack([tone, tone], 1), 48_000, subtype="FLOAT")
    clips = [Utterance(n, audio=str(tmp_path / f"{n}.wav")) for n in ("mono", "both")]
    mono, both = vectors_of(backbone, clips)
    assert torch.allclose(mono, both, atol=1e-4)


def test_silence_has_finite_values(backbone: Egemaps, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "constant.wav", np.full(RATE, 0.25), RATE)
    clips = [Utterance(n, audio=str(tmp_path / f"{n}.wav")) for n in ("silence", "constant")]
    vectors = vectors_of(backbone, clips)
    assert bool(vectors.isfinite().all())
    silence = named(backbone, vectors[0])
    assert silence["equivalentSoundLevel_dBp"] == -120
    assert silence["F1amplitudeLogRelF0_sma3nz_amean"] == -201
    assert silence["F0semitoneFrom27.5Hz_sma3nz_amean"] == silence["VoicedSegmentsPerSec"] == 0


def test_what_is_not_finite_is_refused_by_name(
    backbone: Egemaps, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of clips shorter than a frame openSMILE gives NaN; they are refused for their length."""
    (clip,) = make_manifest([0.5])
    (short,) = make_manifest([0.0599], folder="short")
    with pytest.raises(UtteranceError, match="958 samples at 16 kHz; expected at least 960"):
        backbone.prepare([short])
    values = np.ones((1, 88, 1), np.float32)
    values[0, 10] = np.nan

    def smile(*_: Any) -> Any:
        return values

    smile.feature_names = backbone.smile.feature_names  # type: ignore[attr-defined]
    monkeypatch.setattr(backbone, "smile", smile)
    with pytest.raises(UtteranceError, match=r"has 1 eGeMAPS features.*\['loudness_sma3_amean'\]"):
        backbone.prepare([clip])


def test_provenance_names_the_version_and_the_features(backbone: Egemaps) -> None:
    found = backbone.provenance()
    assert found["opensmile"] == opensmile.__version__
    assert len(set(found["features"])) == 88
    assert found["features"][0] == "F0semitoneFrom27.5Hz_sma3nz_amean"
    other = {**found, "opensmile": "0"}
    assert fingerprint(found) != fingerprint(other)


def test_shards_hold_one_vector_of_float32(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    from features.cache.reader import CacheReader

    entry = backbone_entry("egemaps", {"kind": "egemaps", "store_dtype": "float32"})
    manifest = make_manifest([0.5, 0.02, 0.9])
    done = extract(manifest, entry, tmp_path / "out", store=tmp_path / "store")
    assert (done.computed, done.failed) == (2, 1)
    reader = CacheReader(tmp_path / "out")
    assert list(reader) == ["u0", "u2"]
    assert reader.provenance["features"] == Egemaps().provenance()["features"]
    assert "960" in (tmp_path / "out" / "rejected.csv").read_text()
    assert Sizes.of_entry(entry, Egemaps.spec).pooled


def test_windows_of_long_recordings_are_means(make_manifest: ManifestMaker) -> None:
    settings = {"kind": "egemaps", "long": "window", "window_seconds": 1, "window_hop_seconds": 1}
    with pytest.raises(ParamsError, match="expected `window_pooling: mean`"):
        backbone_entry("x", settings).build()
    entry = backbone_entry("x", {**settings, "window_pooling": "mean"})
    backbone = entry.build()
    (clip,) = make_manifest([2.0])
    assert backbone(backbone.prepare([clip])).values.shape == (1, 2, 88)
    assert not Sizes.of_entry(entry, backbone.spec).pooled


def test_without_opensmile_the_error_says_what_to_install_and_its_licence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Costs need no openSMILE."""
    monkeypatch.setitem(sys.modules, "opensmile", None)
    entry = backbone_entry("x", {"kind": "egemaps"})
    with pytest.raises(CheckpointError, match=r"pip install -e '\.\[egemaps\]'.*no commercial use"):
        entry.build()
    assert stream_of(entry, None) == Egemaps.spec
