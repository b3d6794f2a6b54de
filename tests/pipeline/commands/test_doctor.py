"""`heronry doctor`: every kind of damage and staleness is found, with its remedy."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from features.backbone.entry import backbone_entry
from features.backbones.tone import Tone
from features.cache.reader import CacheReader
from features.cache.shard import DEVIATION, Row, read_shard, shard_name
from features.cache.writer import write_shard
from features.corpus.manifest import Manifest
from features.doctor import shards
from features.doctor.folder import check_cache
from features.doctor.shards import ShardFacts, check_shard
from features.errors import CacheError
from features.extraction.extract import extract as run_extraction
from features.files.reasons import REJECTED, write_reasons
from features.files.writing import link_or_copy
from features.stream import StreamSpec
from tests.conftest import ManifestMaker
from tests.support.models.tone_cache import (
    HERE,
    PARAMS,
    SECONDS,
    STAGE,
    alter,
    change,
    doctor,
    flip_frame,
    manifest,
    prepared,
    rewrite,
    said,
    set_params,
)

__all__ = ["manifest"]  # the fixture that tests ask for


@pytest.mark.usefixtures("manifest")
def test_a_sound_cache() -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    frames = sum(int(seconds / 0.02 + 1e-6) for seconds in SECONDS)
    size = sum(path.stat().st_size for path in HERE.glob("*.h5"))
    expected = f"7 rows, {frames} frames, {size:,} bytes, 3 shards, 1 rejected\n"
    assert result.output == f"ok   {HERE}: {expected}"
    assert doctor(str(HERE), "--weights").exit_code == 0


@pytest.mark.usefixtures("manifest")
def test_a_flipped_bit_is_reported_with_utterance_and_remedy() -> None:
    flip_frame(HERE / "shard-00000.h5")
    line = said()
    assert f"bad  {HERE}/shard-00000.h5: is damaged (frames of ['u1'])" in line
    assert f"`heronry doctor --repair {HERE}`, then `dvc repro {STAGE}`" in line
    assert line.count("\n") == 1  # and nothing about rows that are missing because of it


@pytest.mark.parametrize("kept", [0, 9, 3000, -1])
@pytest.mark.usefixtures("manifest")
def test_truncated_files(kept: int) -> None:
    change(HERE / "shard-00001.h5", lambda whole: whole.__delitem__(slice(kept, None)))
    assert f"bad  {HERE}/shard-00001.h5: is " in said()
    assert doctor("--repair").exit_code == 0
    assert not (HERE / "shard-00001.h5").exists()


@pytest.mark.usefixtures("manifest")
def test_all_problems_are_reported() -> None:
    flip_frame(HERE / "shard-00000.h5")
    rewrite(2, lambda rows: rows[0].frames.__setitem__((3, 2), np.nan))
    (HERE / "shard-00001.h5").unlink()
    (HERE / "notes.txt").write_text("mine")
    set_params(version=2)
    lines = said().splitlines()
    assert [line.split()[1].removesuffix(":") for line in lines] == [
        *(f"{HERE}/{name}" for name in ("notes.txt", "shard-00000.h5", "shard-00002.h5")),
        f"{HERE}/shard-00001.h5",
    ]
    assert "is missing" in lines[-1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("manifest")
def test_values_that_are_not_finite_behind_a_valid_checksum(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BLOCK_VALUES", 100)
    rewrite(0, lambda rows: rows[2].frames.__setitem__((-1, -1), value))
    assert "values are not finite in utterances: 1 ('u2')" in said()


@pytest.mark.parametrize(("value", "sound"), [(0, True), (15, True), (16, False), (-1, False)])
def test_bins_out_of_range(tmp_path: Path, value: int, sound: bool) -> None:
    path = tmp_path / shard_name(0)
    rows = [Row("a", "c", np.array([3], np.int16)), Row("b", "c", np.array([1, value], np.int16))]
    spec = StreamSpec(dim=1, bins=16)
    write_shard(path, rows, spec=spec, provenance={}, dtype="int16")
    found = check_shard(path)
    if sound:
        assert isinstance(found, ShardFacts)
    else:
        assert isinstance(found, list)
        assert [fault.text for fault in found] == [
            "values are outside 0..15 in utterances: 1 ('b')"
        ]


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda f: f["offsets"].__setitem__(1, 101), "`offsets` falls at utterance number 1"),
        (lambda f: f["offsets"].__setitem__(-1, 99), "runs from 0 to 99; expected 0 to 100 frames"),
        (lambda f: f["offsets"].__setitem__(0, 1), "`offsets` runs from 1"),
        (lambda f: f.__delitem__("crc32"), "no readable shard"),
        (lambda f: f.attrs.__setitem__("spec", '{"dim": 9}'), "shape (100, 8); expected [T, 9]"),
        (lambda f: f.attrs.__setitem__("spec", '{"dim": 8, "layers": 3}'), "hold 3 layers"),
        (lambda f: f.attrs.__setitem__("spec", '{"dim": 1, "bins": 5}'), "float16; expected int16"),
        (lambda f: f.attrs.__setitem__("provenance", "{}"), "ids, offsets or attributes"),
    ],
)
@pytest.mark.usefixtures("manifest")
def test_datasets_that_do_not_fit_each_other(
    edit: Callable[[h5py.File], object], text: str
) -> None:
    alter("shard-00001.h5", edit)
    assert text in said()


@pytest.mark.usefixtures("manifest")
def test_fewer_checksums_than_utterances() -> None:
    def edit(file: h5py.File) -> None:
        for name in ("crc32", "offsets"):
            values = file[name][:-1]
            del file[name]
            file[name] = values

    alter("shard-00001.h5", edit)
    output = said()
    assert "`crc32` has the shape (1,); expected (2,)" in output
    assert "`offsets` has the shape (2,); expected (3,)" in output


@pytest.mark.usefixtures("manifest")
def test_a_foreign_file_in_the_place_of_a_shard() -> None:
    path = HERE / "shard-00001.h5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file["frames"] = np.zeros(3)
    assert f"bad  {path}: has format None" in said()
    assert doctor("--repair").exit_code == 0
    assert Path("cache/.quarantine/tones/tone/shard-00001.h5").exists()


@pytest.mark.usefixtures("manifest")
def test_a_shard_of_a_later_version_is_left_alone() -> None:
    alter("shard-00001.h5", lambda file: file.attrs.__setitem__("version", 99))
    output = said("--repair")
    assert "upgrade heronry" in output
    assert (HERE / "shard-00001.h5").exists()


@pytest.mark.usefixtures("manifest")
def test_shards_of_different_backbones() -> None:
    rewrite(1, provenance={"kind": "other"})
    output = said()
    assert f"{HERE}/shard-00001.h5: has another provenance than shard-00000.h5" in output
    assert f"Run `dvc repro {STAGE}`" in output


@pytest.mark.usefixtures("manifest")
def test_shards_may_differ_in_what_was_measured_in_each() -> None:
    shard = read_shard(HERE / shard_name(1))
    rewrite(1, provenance={**shard.provenance, DEVIATION: 0.01})
    assert doctor().exit_code == 0


@pytest.mark.usefixtures("manifest")
def test_ids_that_occur_twice() -> None:
    rewrite(1, to=3)
    output = said()
    assert "ids that occur twice: 2 ('u3', 'u4')" in output
    assert "shard-00003.h5: is cut or ordered otherwise" in output


def test_shards_that_closed_by_their_bytes(
    manifest: Manifest, private_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = dataclasses.replace(manifest, shard_bytes=100)
    prepared(manifest, manifest.utterances, shard_bytes=100)
    assert "is cut or ordered otherwise" in said()
    with monkeypatch.context() as usual:  # older releases closed none by bytes
        usual.setattr("features.doctor.folder.SHARD_BYTES", 100)
        assert doctor().exit_code == 0
    shutil.rmtree(HERE)
    run_extraction(smaller, backbone_entry("tone", {}), HERE, store=private_store)
    assert len(list(HERE.glob("*.h5"))) == len(SECONDS)
    assert doctor().exit_code == 0


def test_missing_and_extra_ids(manifest: Manifest, make_manifest: ManifestMaker) -> None:
    (new,) = make_manifest([0.5], folder="new", start=7)
    prepared(manifest, (*manifest.utterances[1:], new))
    output = said()
    assert f"{HERE}: lacks utterances of the manifest: 1 ('u7')" in output
    assert f"{HERE}: holds ids that are not in the manifest: 1 ('u0')" in output
    assert "--repair" not in output
    assert said("--repair").count("moved") == 0


def test_an_edited_utterance(manifest: Manifest, make_manifest: ManifestMaker) -> None:
    (edited,) = make_manifest([0.6], folder="edit", start=2)
    edited = dataclasses.replace(edited, start=0.0, stop=0.6)
    rows = manifest.utterances
    prepared(manifest, (*rows[:2], edited, *rows[3:]))
    assert f"{HERE}: is older than what the manifest says of: 1 ('u2')" in said()


def test_shards_with_other_cuts(manifest: Manifest) -> None:
    prepared(manifest, manifest.utterances, shard_seconds=0.5)
    output = said()
    assert f"{HERE}/shard-00000.h5: is cut or ordered otherwise" in output
    assert f"{HERE}/shard-00003.h5: is missing" in output


def test_numbers_of_frames_that_do_not_fit_the_hop(manifest: Manifest) -> None:
    """Off by four frames in 54 is reported, off by one and a half is not."""
    first, second, *rest = manifest.utterances
    near = dataclasses.replace(first, seconds=0.5 + 0.03)
    far = dataclasses.replace(second, seconds=1.0 + 0.08)
    prepared(manifest, (near, far, *rest))
    assert "frames that do not fit `hop_seconds`: 1 ('u1: 50 for 1.08 s')" in said()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dim": 9}, "dim was 8, is 9"),
        ({"version": 2}, "version was 1, is 2"),
        ({"pooling": "mean"}, "pooling was 'frames', is 'mean'"),
        ({"store_dtype": "float32"}, "store_dtype was 'float16', is 'float32'"),
        ({"compute_dtype": "bfloat16"}, "compute_dtype was 'float32', is 'bfloat16'"),
    ],
)
@pytest.mark.usefixtures("manifest")
def test_changed_settings(change: dict[str, object], text: str) -> None:
    set_params(**change)
    output = said()
    assert f"{HERE}: is stale: {text}. Run `dvc repro {STAGE}`" in output
    assert output.count("\n") == 1


@pytest.mark.usefixtures("manifest")
def test_changed_weights_are_found_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tone, "provenance", lambda _: {"weights_sha256": "f00"})
    assert doctor().exit_code == 0
    output = said("--weights")
    assert "weights_sha256 was None, is 'f00'" in output
    assert "frequencies_hz was 'logspace(100, 4000)', is None" in output


@pytest.mark.usefixtures("manifest")
def test_without_params_or_manifest_the_files_are_still_checked() -> None:
    set_params()
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS | {"backbones": {"none": {}}}))
    result = doctor()
    assert result.exit_code == 0, result.output
    assert f"note {HERE}: params.yaml has no backbone 'tone' any more" in result.output
    Path("params.yaml").unlink()
    Path("data").rename("elsewhere")
    result = doctor()
    assert result.exit_code == 0, result.output
    assert result.output.count("note") == 2
    flip_frame(HERE / "shard-00000.h5")
    assert "Delete the folder, or extract it again" in said()


@pytest.mark.usefixtures("manifest")
def test_rejected_ids_are_accounted_for() -> None:
    path = HERE / REJECTED
    write_reasons(path, {})
    assert "lacks utterances of the manifest: 1 ('words')" in said()
    write_reasons(path, {"words": "has no audio", "u1": "too short"})
    assert f"{path}: lists ids that have features: 1 ('u1')" in said()
    path.unlink()
    assert f"{path}: is missing" in said()
    path.write_bytes(b"\xff\xfe")
    assert f"{path}: cannot be read" in said()


def test_a_cache_of_rejected_utterances_alone(manifest: Manifest) -> None:
    """As an earlier release left it, which took it for finished."""
    for shard in HERE.glob("*.h5"):
        shard.unlink()
    for reason, line in (("has no text", "has no text (8)"), ("has 7 samples", "samples (8)")):
        write_reasons(HERE / REJECTED, {u.id: reason for u in manifest})
        lines = said()
        assert f"bad  {HERE}: holds no features: all 8 utterances were rejected: has " in lines
        assert line in lines
        assert lines.count("\n") == 1
        with pytest.raises(CacheError, match="all 8 utterances were rejected") as caught:
            CacheReader(HERE)
        assert "dvc pull" not in str(caught.value)
    write_reasons(HERE / REJECTED, {u.id: "has no asr" for u in manifest})
    assert doctor().exit_code == 0  # recognised words are never a must


@pytest.mark.usefixtures("manifest")
def test_a_backbone_that_is_none_has_no_shards() -> None:
    none = Path("cache/tones/none")
    none.mkdir()
    write_reasons(none / REJECTED, {})
    result = doctor()
    assert f"ok   {none}: 0 rows" in result.output
    assert result.exit_code == 0
    link_or_copy(HERE / shard_name(0), none / shard_name(0))
    assert "holds shards, but its entry is of kind `none`" in said(str(none))


def test_nothing_to_check_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no caches below cache/" in str(doctor().exception)
    assert "is no folder" in str(doctor("cache/far/away").exception)


@pytest.mark.slow
def test_every_altered_byte_is_found_and_none_stops_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever byte is altered: a fault, or a byte that holds nothing (then all is as before)."""
    monkeypatch.setattr(shards, "OPEN_SECONDS", 15.0)
    path = tmp_path / shard_name(0)
    rows = [Row(id, id * 3, np.full((n, 2), n, "f2")) for id, n in {"a": 3, "b": 0, "ö": 5}.items()]
    write_shard(path, rows, spec=StreamSpec(2), provenance={"kind": "x"}, dtype="float16")
    whole, sound = path.read_bytes(), check_shard(path)
    assert isinstance(sound, ShardFacts)
    places = range(0, len(whole), 17)
    for number, place in enumerate(places):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.with_name(shard_name(number)).write_bytes(damaged)
    found = check_cache(tmp_path)
    for facts in found.shards:
        assert (facts.ids, facts.contents) == (sound.ids, sound.contents)
        assert (facts.lengths == sound.lengths).all()
    assert len(found.shards) + len(found.unusable) == len(places)
    assert len(found.unusable) > 50
    assert {f.remedy for f in found.faults if f.path.suffix == ".h5"} == {"quarantine"}


@pytest.mark.slow
@pytest.mark.usefixtures("manifest")
def test_a_shard_that_hdf5_hangs_on_is_found_and_the_rest_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong length in the global heap, where text attributes lie without a checksum."""
    monkeypatch.setattr(shards, "OPEN_SECONDS", 3.0)
    flip_frame(HERE / "shard-00002.h5")
    path = HERE / "shard-00001.h5"
    alter(path.name, lambda file: file.attrs.__setitem__("format", "heronry-cache"))  # in the heap
    place = path.read_bytes().index(b"heronry-cache") - 7
    change(path, lambda whole: whole.__setitem__(place, 6))
    output = said()
    assert f"bad  {path}: is damaged: HDF5 crashes or hangs on it" in output
    assert "damaged (frames of ['u6'])" in output
