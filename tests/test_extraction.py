"""Resumed = uninterrupted, incremental = from scratch, and nothing is computed twice."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from features.backbone_entry import BackboneEntry, backbone_entry
from features.backbones._backbone import Inputs
from features.backbones.tone import Tone
from features.cache import CacheReader
from features.errors import ManifestError
from features.extraction import Extraction, extract
from features.manifest import Manifest, Utterance
from features.stream import Stream
from tests.conftest import ManifestMaker

TONE = BackboneEntry("tone", "tone")
SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8, 0.4, 0.9, 1.1]


def run(manifest: Manifest, out: Path, store: Path, entry: BackboneEntry = TONE) -> Extraction:
    return extract(manifest, entry, out, store=store)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_cache_holds_what_the_backbone_gives(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    tell = run(manifest, tmp_path / "out", tmp_path / "store")
    reader = CacheReader(tmp_path / "out", verify=True)
    assert len(reader.shards) > 2
    assert tell.computed == len(SECONDS)
    backbone = Tone()
    for utterance in manifest:
        live = backbone(backbone.prepare([utterance])).unpad()[0]
        assert (reader[utterance.id] == live.half().numpy()).all()


def test_second_run_computes_nothing(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    before = content(tmp_path / "out")
    tell = run(manifest, tmp_path / "out", tmp_path / "store")
    assert (tell.computed, tell.copied) == (0, 0)
    assert content(tmp_path / "out") == before


def test_incremental_equals_from_scratch(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    whole = make_manifest(SECONDS)
    part = dataclasses.replace(whole, utterances=whole.utterances[:5])
    run(part, tmp_path / "out", tmp_path / "store")
    tell = run(whole, tmp_path / "out", tmp_path / "store")
    assert tell.computed == 3
    run(whole, tmp_path / "scratch", tmp_path / "other store")
    assert content(tmp_path / "out") == content(tmp_path / "scratch")


def test_reordering_and_cutting_anew_compute_nothing(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    other = dataclasses.replace(manifest, utterances=manifest.utterances[::-1], shard_seconds=3.0)
    tell = run(other, tmp_path / "out", tmp_path / "store")
    assert tell.computed == 0
    run(other, tmp_path / "scratch", tmp_path / "other store")
    assert content(tmp_path / "out") == content(tmp_path / "scratch")


def test_editing_one_computes_that_one(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    edited = make_manifest([0.7], folder="edit", start=3).utterances[0]
    rows = list(manifest.utterances)
    rows[3] = edited
    changed = dataclasses.replace(manifest, utterances=tuple(rows))
    assert run(changed, tmp_path / "out", tmp_path / "store").computed == 1


def test_other_settings_compute_all_again(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    for change in ({"version": 2}, {"dim": 5}, {"pooling": "mean"}, {"store_dtype": "float32"}):
        entry = backbone_entry("tone", change)
        assert run(manifest, tmp_path / "out", tmp_path / "store", entry).computed == len(SECONDS)


def test_bad_audio_is_rejected_with_its_reason(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    path = Path(manifest.utterances[2].audio or "")
    path.write_bytes(b"no audio at all")
    rows = list(manifest.utterances)
    rows[2] = dataclasses.replace(rows[2], sha256=None)
    rows.append(Utterance(id="words only", text="hello"))
    broken = dataclasses.replace(manifest, utterances=tuple(rows))
    for _ in range(2):  # the second time from the store: the reasons must still be told
        tell = run(broken, tmp_path / "out", tmp_path / "store")
        assert list(tell.rejected) == ["u2", "words only"]
        reader = CacheReader(tmp_path / "out")
        assert reader.rejected == tell.rejected
        assert len(reader) == len(SECONDS) - 1


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_missing_or_changed_files_stop_the_run_and_keep_finished_shards(
    make_manifest: ManifestMaker, tmp_path: Path, damage: str
) -> None:
    manifest = make_manifest(SECONDS)
    path = Path(manifest.utterances[-1].audio or "")
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-2] + b"xx")
    with pytest.raises(ManifestError, match=str(path)):
        run(manifest, tmp_path / "out", tmp_path / "store")
    path.write_bytes(whole)
    tell = run(manifest, tmp_path / "out", tmp_path / "store")
    assert tell.linked >= 2
    assert tell.computed < len(SECONDS) / 2


def test_damaged_shard_in_the_store_is_made_again(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    before = content(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    victim = sorted((tmp_path / "store").rglob("*.h5"))[0]
    damaged = bytearray(victim.read_bytes())
    damaged[-1] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(damaged[: len(damaged) // 2])
    tell = run(manifest, tmp_path / "out", tmp_path / "store")
    assert tell.computed > 0
    assert content(tmp_path / "out") == before


def test_none_writes_only_its_list(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store", BackboneEntry("none", "none"))
    assert content(tmp_path / "out") == {"rejected.csv": b"id,reason\n"}


class Exploding(Tone):
    """A backbone that must not be asked for anything."""

    def __call__(self, inputs: Inputs) -> Stream:
        raise AssertionError(inputs.ids)


def test_full_store_needs_no_forward_pass(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    monkeypatch.setattr("features.backbones.tone.build", Exploding)
    run(manifest, tmp_path / "out", tmp_path / "store")
