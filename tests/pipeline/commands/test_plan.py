"""`heronry plan`: the forecast of an extraction, and its reason."""

from __future__ import annotations

import dataclasses
import shutil
import tracemalloc
from pathlib import Path

import pytest
import soundfile

from benchmarks.scaling import store
from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.errors import ManifestError, ParamsError
from features.extraction.extract import Options, extract
from features.files import reading
from features.files.reading import file_sha256
from pipeline.commands.plan import Step, _known, _reason, nothing, plan_lines, plan_steps
from pipeline.costs.cards import Speed
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.whisper import write as write_whisper
from tests.pipeline.commands.test_check import params

SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8]


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    monkeypatch.chdir(tmp_path)
    manifest = make_manifest(SECONDS)
    prepare(manifest)
    return manifest


def prepare(manifest: Manifest) -> None:
    """Write what `prepare` would: paths relative to the root."""
    rows = tuple(
        dataclasses.replace(u, audio=Path(u.audio or "").name) for u in manifest.utterances
    )
    dataclasses.replace(manifest, utterances=rows).write(Path("data/mine/utterances"))


def run(manifest: Manifest) -> None:
    extract(manifest, params().backbone("tone"), Path("cache/mine/tone"), store=Path("store"))


def planned(**tone: object) -> Step:
    (step,) = plan_steps(params(backbones={"tone": tone, "none": {}}), Path("store"))
    return step


@pytest.mark.usefixtures("manifest")
def test_an_empty_cache() -> None:
    step = planned()
    assert (step.forecast.compute, step.forecast.copy) == (5, 0)
    assert step.forecast.seconds == pytest.approx(sum(SECONDS))
    assert "cache/mine/tone is not there yet" in step.line(Speed())
    assert "5 utterances to compute (4 s of audio)" in step.line(Speed())
    assert not Path("cache").exists()
    assert not list(Path("store").rglob("*.h5"))


def test_up_to_date(manifest: Manifest) -> None:
    run(manifest)
    step = planned()
    assert (step.forecast.compute, step.forecast.finished) == (0, step.forecast.shards)
    assert step.reason == "cache/mine/tone is up to date with data/mine/utterances"


def test_a_changed_setting_is_named(manifest: Manifest) -> None:
    run(manifest)
    step = planned(dim=5, version=3)
    assert step.forecast.compute == 5
    assert "options.dim 8 -> 5" in step.reason
    assert "version 1 -> 3" in step.reason


def test_new_edited_and_removed_utterances_are_counted(
    manifest: Manifest, make_manifest: ManifestMaker
) -> None:
    run(manifest)
    (other, new) = make_manifest([0.7, 0.9], folder="more", start=7)
    rows = (*manifest.utterances[:3], dataclasses.replace(other, id="u3"), new)
    prepare(dataclasses.replace(manifest, utterances=rows))
    step = planned()
    assert step.reason == "the corpus changed: 1 new, 1 edited, 1 removed"
    assert step.forecast.compute == 2


def test_another_order_computes_nothing(manifest: Manifest) -> None:
    run(manifest)
    prepare(dataclasses.replace(manifest, utterances=manifest.utterances[::-1]))
    step = planned()
    assert step.forecast.compute == 0
    assert step.reason == "the order of the corpus changed"


def test_an_utterance_in_two_shards_is_named(manifest: Manifest) -> None:
    run(manifest)
    first, *_, last = sorted(Path("cache/mine/tone").glob("*.h5"))
    last.unlink()
    shutil.copy(first, last)
    assert "an utterance occurs in two shards" in planned().reason


def test_known_rejects_are_up_to_date(manifest: Manifest) -> None:
    short = Path(manifest.utterances[0].audio or "")
    soundfile.write(short, [0.0] * 10, 16_000)
    rows = (
        dataclasses.replace(manifest.utterances[0], sha256=file_sha256(short), seconds=0.01),
        *manifest.utterances[1:],
    )
    changed = dataclasses.replace(manifest, utterances=rows)
    prepare(changed)
    run(changed)
    assert planned().reason == "cache/mine/tone is up to date with data/mine/utterances"


def test_a_cache_is_compared_one_shard_at_a_time(tmp_path: Path) -> None:
    count = 3000
    store.make(tmp_path, count)
    manifest, known = Manifest.read(tmp_path), _known(store.ENTRY, tmp_path / "store")
    tracemalloc.start()
    reason = _reason(tmp_path / "cache", manifest, known)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "is up to date" in reason
    assert peak < 200 * count, peak / count  # bytes; 711 with ids and contents as text


def test_without_a_manifest_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match="prepare@mine"):
        plan_steps(params(), Path("store"))
    with pytest.raises(ManifestError, match="prepare@mine"):
        plan_lines(params(), Path("store"), None, Speed())


WEIGHTLESS = {"kind": "speech_encoder", "checkpoint": "facebook/hubert-base-ls960"}


@pytest.mark.usefixtures("manifest")
def test_weights_that_are_not_here_leave_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    both = params(backbones={"tone": {}, "none": {}, "hubert": WEIGHTLESS})
    known, estimated = plan_lines(both, Path("store"), ["tone", "hubert"], Speed())
    assert "5 utterances to compute" in known
    frames = sum(SECONDS) * 50
    assert f"cache/mine/hubert: missing; about {frames * 768 * 2 / 1e3:.1f} kB" in estimated
    assert "less than 0.01 GPU-hours; cannot load checkpoint" in estimated


def test_a_corpus_that_is_not_here_is_estimated_by_published_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"corpus": "ravdess", "corpora": {"ravdess": {"protocol": "speaker_split"}}}
    heading, line = plan_lines(params(**changes), Path("store"), None, Speed())
    assert heading.startswith("corpus ravdess: 1,440 utterances, 1.5 hours; not prepared")
    assert "prepare@ravdess" in heading
    # Eight numbers of float16, 50 times a second.
    assert (
        line
        == f"cache/ravdess/tone: missing; about {1.5 * 3600 * 50 * 8 * 2 / 1e6:.1f} MB, no network"
    )


def test_what_reads_no_features_is_named() -> None:
    entry = {"kind": "endpoint", "checkpoint": "m", "prompt": "p.txt"}
    given = {"regime": "speech_llm", "speech_llms": {"remote": entry}}
    said = nothing(params(fusion="remote", **given))
    assert said == "no backbone: speech_llms.remote reads no features"
    with pytest.raises(ParamsError, match="speech_llms: no entry 'other'; expected"):
        nothing(params(fusion="other", **given))


def test_networks_that_are_known_are_not_loaded(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SETTLED_NS", -(10**12))  # as if the files were old
    entry = {"kind": "whisper", "pad": "trim", **write_whisper(tmp_path / "whisper")}
    backbones = {"last": entry, "first": entry | {"layer": 1}, "none": {}}
    model = {"kind": "concat", "speech": "last", "nonverbal": "first"}
    both = params(backbones=backbones, models={"m": model})
    lines = [plan_lines(both, Path("store"), names, Speed()) for names in (None, ["last"])]
    assert "in the same pass: first (about" in lines[1][0]
    monkeypatch.setattr(BackboneEntry, "build", lambda _: pytest.fail("a network was loaded"))
    assert lines == [plan_lines(both, Path("store"), each, Speed()) for each in (None, ["last"])]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "SETTLED_NS", -(10**12))
    options = Options(siblings=(both.backbone("first"),), workers=0)
    out = Path("cache/mine/last")
    extract(manifest, both.backbone("last"), out, store=Path("store"), options=options)
    monkeypatch.setattr(BackboneEntry, "build", lambda _: pytest.fail("a network was loaded"))
    (first, last) = plan_lines(both, Path("store"), None, Speed())
    assert "0 utterances to compute" in first
    assert "cache/mine/first is not there yet" in first
    assert "cache/mine/last is up to date" in last
