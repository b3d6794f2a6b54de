"""Resumed equals uninterrupted, incremental equals from scratch; nothing is computed twice."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry, backbone_entry
from features.backbones.tone import Tone
from features.cache.reader import CacheReader
from features.cache.writer import Spool, write_shard
from features.corpus.manifest import Manifest
from features.corpus.utterance import SHARD_BYTES, Member, Utterance
from features.errors import CacheError, MachineError, ManifestError
from features.extraction.extract import Extraction, extract
from features.extraction.output import finite
from features.files.reading import file_sha256
from features.stream import Stream
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import text_encoder
from tests.support.paths import contents_of

TONE = BackboneEntry("tone", "tone")
SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8, 0.4, 0.9, 1.1]


def run(manifest: Manifest, out: Path, store: Path, entry: BackboneEntry = TONE) -> Extraction:
    return extract(manifest, entry, out, store=store)


def test_cache_holds_what_the_backbone_gives(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    done = run(manifest, tmp_path / "out", tmp_path / "store")
    reader = CacheReader(tmp_path / "out", verify=True)
    assert len(reader.shards) > 2
    assert done.computed == len(SECONDS)
    backbone = Tone()
    for utterance in manifest:
        live = backbone(backbone.prepare([utterance])).unpad()[0]
        assert (reader[utterance.id] == live.half().numpy()).all()


@pytest.mark.parametrize("layers", [1, 40])
def test_rows_that_do_not_fit_the_memory_wait_in_a_file(
    layers: int, make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are the same whatever is held, computed or copied."""
    entry = backbone_entry("wide", {"kind": "tone", "dim": 8 * layers})
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store", entry)
    shorter = dataclasses.replace(manifest, shard_seconds=0.1)
    run(shorter, tmp_path / "shorter", tmp_path / "store", entry)
    monkeypatch.setattr("features.extraction.output.HELD_BYTES", 1000)
    monkeypatch.setattr("features.extraction.extractor.IN_FLIGHT_BYTES", 1000)
    spools: list[Path] = []

    def spool(folder: Path) -> Spool:
        spools.append(folder)
        return Spool(folder)

    monkeypatch.setattr("features.extraction.output.Spool", spool)
    given_back: list[bool] = []
    monkeypatch.setattr("features.extraction.extractor.GIVE_BACK_BYTES", 1000)
    monkeypatch.setattr(
        "features.extraction.extractor.give_back_freed", lambda: given_back.append(True)
    )
    run(manifest, tmp_path / "spooled", tmp_path / "other", entry)
    assert contents_of(tmp_path / "spooled") == contents_of(tmp_path / "out")
    assert given_back
    assert spools
    done = run(shorter, tmp_path / "copied", tmp_path / "other", entry)
    assert done.computed == 0 < done.copied
    assert contents_of(tmp_path / "copied") == contents_of(tmp_path / "shorter")


def test_a_full_disk_is_named_where_rows_wait(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("features.extraction.output.HELD_BYTES", 100)
    monkeypatch.setattr("features.cache.writer.os.write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run(make_manifest(SECONDS), tmp_path / "out", tmp_path / "store")
    assert Path(caught.value.filename).parent == tmp_path / "store"
    assert not list((tmp_path / "store").rglob(".rows-*"))


@pytest.mark.parametrize("bound", [SHARD_BYTES, 1500])
def test_a_union_uses_members_caches_that_close_elsewhere(
    bound: int, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """As those of releases that did not look at bytes."""
    made = make_manifest(SECONDS, shard_seconds=100.0)
    run(made, tmp_path / "cache/a/tone", tmp_path / "store")
    rows = tuple(dataclasses.replace(each, id=f"a/{each.id}") for each in made)
    member = Member("a", "manifest", False, len(rows), 100.0, 10**6, bound)
    union = Manifest("all", rows, kind="union", members=(member,))
    done = run(union, tmp_path / "cache/all/tone", tmp_path / "another store")
    assert done.computed == 0
    assert (done.copied, done.linked) == ((0, 1) if bound == SHARD_BYTES else (len(rows), 0))
    ours, theirs = (CacheReader(tmp_path / "cache" / of / "tone") for of in ("all", "a"))
    for id, frames in theirs.items():
        assert (ours[f"a/{id}"] == frames).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_seen(value: float) -> None:
    frames = torch.full((40, 30), 3e38)
    frames[7, 11] = -3e38
    assert finite(frames)
    assert finite(frames[:0])
    frames[23, 5] = value
    assert not finite(frames)


def test_second_run_computes_nothing(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    before = contents_of(tmp_path / "out")
    done = run(manifest, tmp_path / "out", tmp_path / "store")
    assert (done.computed, done.copied) == (0, 0)
    assert contents_of(tmp_path / "out") == before


def test_incremental_equals_from_scratch(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    whole = make_manifest(SECONDS)
    part = dataclasses.replace(whole, utterances=whole.utterances[:5])
    run(part, tmp_path / "out", tmp_path / "store")
    done = run(whole, tmp_path / "out", tmp_path / "store")
    assert done.computed == 3
    run(whole, tmp_path / "scratch", tmp_path / "other store")
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "scratch")


def test_reordering_and_other_shard_sizes_compute_nothing(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    other = dataclasses.replace(manifest, utterances=manifest.utterances[::-1], shard_seconds=3.0)
    done = run(other, tmp_path / "out", tmp_path / "store")
    assert done.computed == 0
    run(other, tmp_path / "scratch", tmp_path / "other store")
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "scratch")


def test_editing_an_utterance_computes_that_one(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    edited = make_manifest([0.7], folder="edit", start=3).utterances[0]
    rows = list(manifest.utterances)
    rows[3] = edited
    changed = dataclasses.replace(manifest, utterances=tuple(rows))
    assert run(changed, tmp_path / "out", tmp_path / "store").computed == 1


def test_other_settings_compute_everything_again(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
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
    rows[2] = dataclasses.replace(rows[2], sha256=file_sha256(path))
    rows.append(Utterance(id="words only", text="hello"))
    broken = dataclasses.replace(manifest, utterances=tuple(rows))
    for _ in range(2):  # the second time from the store, with the same reasons
        done = run(broken, tmp_path / "out", tmp_path / "store")
        assert list(done.rejected) == ["u2", "words only"]
        reader = CacheReader(tmp_path / "out")
        assert reader.rejected == done.rejected
        assert len(reader) == len(SECONDS) - 1


def test_a_corpus_without_usable_utterance_leaves_no_cache(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    heard = make_manifest(SECONDS)
    mute = dataclasses.replace(
        heard, utterances=tuple(Utterance(id=u.id, text=u.text) for u in heard)
    )
    short = make_manifest([0.01, 0.012], folder="short", start=50)
    for manifest, reason in ((mute, r"has no audio \(8\)"), (short, r"samples.*\(2\)")):
        for _ in range(2):  # the second time from the store
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / "of an earlier run.h5").touch()
            with pytest.raises(CacheError, match=f"utterances were rejected: .*{reason}"):
                run(manifest, tmp_path / "out", tmp_path / "store")
            assert not (tmp_path / "out").exists()
    both = dataclasses.replace(heard, utterances=(*heard.utterances, *short.utterances))
    done = run(both, tmp_path / "out", tmp_path / "store")
    assert (done.utterances, len(done.rejected)) == (10, 2)


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
    done = run(manifest, tmp_path / "out", tmp_path / "store")
    assert done.linked >= 2
    assert done.computed < len(SECONDS) / 2


def test_damaged_shard_in_the_store_is_made_again(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    before = contents_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    victim = sorted((tmp_path / "store").rglob("*.h5"))[0]
    damaged = bytearray(victim.read_bytes())
    damaged[-1] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(damaged[: len(damaged) // 2])
    done = run(manifest, tmp_path / "out", tmp_path / "store")
    assert done.computed > 0
    assert contents_of(tmp_path / "out") == before


def test_none_writes_only_a_list_of_rejects(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store", BackboneEntry("none", "none"))
    assert contents_of(tmp_path / "out") == {"rejected.csv": b"id,reason\n"}


class Exploding(Tone):
    """A backbone that must not be called."""

    def __call__(self, inputs: Inputs) -> Stream:
        raise AssertionError(inputs.ids)


def test_full_store_needs_no_forward_pass(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(SECONDS)
    run(manifest, tmp_path / "out", tmp_path / "store")
    monkeypatch.setattr("features.backbones.tone.build", Exploding)
    run(manifest, tmp_path / "out", tmp_path / "store")


class Sociable(Tone):
    """Its values are the size of the batch, as an exaggerated rounding."""

    cpu_batch_seconds = 20.0

    def __init__(self, *, dim: int = 8) -> None:
        super().__init__(dim=dim)
        self.network = torch.nn.Identity()

    def __call__(self, inputs: Inputs) -> Stream:
        stream = super().__call__(inputs)
        values = torch.full_like(stream.values, len(inputs.ids)) * stream.mask[..., None]
        return Stream(values, stream.mask)


@pytest.mark.parametrize("finished", range(1, 5))
def test_batches_do_not_depend_on_which_shards_were_finished(
    finished: int, make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if each shard has one utterance of its own and one that all have."""
    common, *others = make_manifest([0.5, *[1.6] * 5])
    rows = [u for other in others for u in (dataclasses.replace(common, id=f"c{other.id}"), other)]
    manifest = dataclasses.replace(make_manifest([]), utterances=tuple(rows))
    monkeypatch.setattr("features.backbones.tone.build", Sociable)
    run(manifest, tmp_path / "reference", tmp_path / "other store")
    reader, calls = CacheReader(tmp_path / "reference"), 0
    assert len(reader.shards) == len(others)
    assert {int(reader[u.id].max()) for u in rows} == {2}

    def stop(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > finished:
            raise OSError(28, "No space left on device")
        write_shard(*args, **options)

    with monkeypatch.context() as full:
        full.setattr("features.cache.writer.write_shard", stop)
        with pytest.raises(MachineError):
            run(manifest, tmp_path / "out", tmp_path / "store")
    assert run(manifest, tmp_path / "out", tmp_path / "store").linked == finished
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


def test_rows_of_another_plan_are_copied_to_batches(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Sociable)
    whole = make_manifest(SECONDS)
    part = dataclasses.replace(whole, utterances=whole.utterances[:5])
    run(part, tmp_path / "out", tmp_path / "store")
    assert run(whole, tmp_path / "out", tmp_path / "store").computed == 3
    other = dataclasses.replace(whole, utterances=whole.utterances[::-1], shard_seconds=3.0)
    assert run(other, tmp_path / "out", tmp_path / "store").computed == 0


def test_incremental_texts_agree_with_those_from_scratch(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    options = text_encoder.VARIANTS["roberta"](tmp_path / "checkpoint")
    entry = BackboneEntry("x", "text_encoder", store_dtype="float32", options=options)
    whole = make_manifest([0.1] * 12)
    part = dataclasses.replace(whole, utterances=whole.utterances[:7])
    run(part, tmp_path / "out", tmp_path / "store", entry)
    done = run(whole, tmp_path / "out", tmp_path / "store", entry)
    assert done.computed == 5
    run(whole, tmp_path / "scratch", tmp_path / "other store", entry)
    grown, scratch = CacheReader(tmp_path / "out"), CacheReader(tmp_path / "scratch")
    for utterance in whole:
        expected = scratch[utterance.id]
        assert np.abs(grown[utterance.id] - expected).max() <= 1e-5 * np.abs(expected).max()
