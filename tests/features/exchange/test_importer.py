"""Imported features become a cache: matched, checked, sealed."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.backbones.imported import Imported
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.doctor.folder import check_against, check_cache
from features.errors import CacheError, CheckpointError, ParamsError
from features.exchange.export import Form, export
from tests.conftest import ManifestMaker
from tests.support.models.foreign_features import (
    OUT,
    SECONDS,
    Arrays,
    arrays,
    as_index,
    as_npy,
    as_safetensors,
    as_torch,
    as_torch_file,
    extracted,
    prepare,
    take,
)


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    monkeypatch.chdir(tmp_path)
    return prepare(make_manifest(SECONDS))


@pytest.mark.parametrize("write", [as_npy, as_safetensors, as_torch, as_torch_file, as_index])
def test_every_safe_format_gives_the_values_that_were_written(
    write: Callable[[Arrays], Path], manifest: Manifest, private_store: Path
) -> None:
    values = arrays()
    found = take(manifest, write(values), hop_seconds=0.2)
    assert list(found.imported) == list(values)
    assert not found.rejected | found.refused
    assert not found.extra
    assert extracted(manifest, found, private_store).computed == len(values)
    reader = CacheReader(Path("cache/tones/old"), verify=True)
    assert list(reader) == list(values)
    assert all(np.array_equal(reader[id], values[id]) for id in values)
    assert (reader.spec.dim, reader.spec.hop_seconds) == (4, 0.2)


def as_npz(values: Arrays) -> Path:
    np.savez_compressed("old.npz", **values)  # type: ignore[arg-type]
    return Path("old.npz")


def as_hdf5(values: Arrays) -> Path:
    with h5py.File("old.h5", "w") as file:
        for id, array in values.items():
            file.create_dataset(id, data=array, compression="gzip")
    return Path("old.h5")


@pytest.mark.parametrize("write", [as_npz, as_hdf5])
def test_a_format_that_is_not_read_is_refused_with_lines_that_convert_it(
    write: Callable[[Arrays], Path], manifest: Manifest
) -> None:
    values = {id.replace("u", "d/u"): array for id, array in arrays().items()}
    renamed = [dataclasses.replace(u, id=u.id.replace("u", "d/u")) for u in manifest]
    grouped = dataclasses.replace(manifest, utterances=tuple(renamed))
    source = write(values)
    with pytest.raises(CacheError, match=r"not read; expected \.npy, \.safetensors") as refusal:
        take(grouped, source)
    said = re.search(r"old\.(npz|h5): .*`(.+)` and `(.+)`", str(refusal.value))
    assert said is not None
    program = f"import h5py, numpy, safetensors.numpy\n{said[2]}\n{said[3]}"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert list(take(grouped, Path("old.safetensors")).imported) == list(values)
    reader = CacheReader(OUT)
    assert all(np.array_equal(reader[id], values[id]) for id in values)


def test_a_converted_file_may_stay_beside_the_new_one(manifest: Manifest) -> None:
    values = arrays()
    source = as_npy(values)
    np.savez(source / "u1.npz", values["u1"])
    np.savez(source / "nobody.npz", values["u1"])
    found = take(manifest, source)
    assert list(found.imported) == list(values)
    assert sorted(found.refused) == ["nobody.npz", "u1.npz"]


def test_extracted_imports_are_sound_and_record_their_origin(
    manifest: Manifest, private_store: Path
) -> None:
    found = take(manifest, as_npy(arrays(dtype="float16")))
    assert found.dtype == "float16"
    extracted(manifest, found, private_store)
    cache = check_cache(Path("cache/tones/old"))
    assert not [*cache.faults, *check_against(cache, manifest)]
    provenance = CacheReader(Path("cache/tones/old")).provenance
    assert provenance["imported"]["source"] == "old"
    assert provenance["revision"] == found.revision


def test_equal_arrays_give_equal_bytes_and_others_another_revision(manifest: Manifest) -> None:
    values = arrays()
    source = as_npy(values)
    first = take(manifest, source).revision
    shards = [path.read_bytes() for path in sorted(OUT.glob("*.h5"))]
    assert take(manifest, source).revision == first
    assert [path.read_bytes() for path in sorted(OUT.glob("*.h5"))] == shards
    values["u3"][0, 0] += 1
    assert take(manifest, as_npy(values)).revision != first


@pytest.mark.parametrize("form", ["npy", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_export_and_import_is_the_same_to_the_bit(
    form: Form, dtype: str, manifest: Manifest, private_store: Path
) -> None:
    extracted(manifest, take(manifest, as_npy(arrays(dtype=dtype))), private_store)
    before = {id: frames.copy() for id, frames in CacheReader(Path("cache/tones/old")).items()}
    export("tones", "old", form, Path("out"))
    found = take(manifest, Path("out"))
    assert found.dtype == dtype
    extracted(manifest, found, private_store / "other")
    after = CacheReader(Path("cache/tones/old"))
    assert list(after) == list(before)
    for id in before:
        assert after[id].dtype == before[id].dtype
        assert after[id].tobytes() == before[id].tobytes()


def test_a_vector_is_one_frame_and_a_batch_of_one_is_no_batch(manifest: Manifest) -> None:
    values: Arrays = {f"u{i}": np.full(3, i, np.float32) for i in range(4)}
    values["u4"] = np.full((1, 1, 3), 4, np.float32)
    take(manifest, as_npy(values))
    reader = CacheReader(OUT)
    assert all(reader[id].tolist() == [[float(id[1])] * 3] for id in reader)


def test_bins(manifest: Manifest, private_store: Path) -> None:
    values: Arrays = {f"u{i}": np.arange(i + 1) for i in range(5)}
    found = take(manifest, as_npy(values), bins=4)
    assert found.rejected == {"u4": "u4.npy holds bins 0 to 4; expected 0 to 3"}
    done = extracted(manifest, found, private_store, bins=4)
    assert done.rejected == found.rejected
    assert CacheReader(Path("cache/tones/old"))["u3"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ParamsError, match="given bins None; they have 4"):
        Imported(checkpoint=str(OUT))


def test_bad_and_missing_arrays_are_listed_and_the_rest_goes_on(
    manifest: Manifest, private_store: Path
) -> None:
    values = arrays()
    values["u0"][0, 0] = np.nan
    values["u1"] = values["u1"].astype(np.int64)
    values["u2"] = np.zeros((3, 9), np.float32)
    del values["u3"]
    values["nobody"] = np.zeros((2, 4), np.float32)
    source = as_npy({**values, "u5": np.ones((0, 4)), "u6": np.ones((1, 4))})
    (*four, last) = manifest.utterances
    more = tuple(dataclasses.replace(last, id=f"u{i}", start=0.1 * i, stop=1.0) for i in (4, 5, 6))
    larger = prepare(dataclasses.replace(manifest, utterances=(*four, *more)))
    found = take(larger, source)
    assert found.rejected == {
        "u0": "u0.npy holds values that are not finite",
        "u1": "u1.npy is int64; expected float16, float32 or float64 (of integer bins, give "
        "--bins)",
        "u2": "u2.npy is 9 wide; expected 4",
        "u3": "has no array",
        "u5": "u5.npy has the shape (0, 4); expected at least one frame",
    }
    assert found.extra == ["nobody.npy"]
    done = extracted(larger, found, private_store)
    assert done.rejected == found.rejected
    assert list(CacheReader(Path("cache/tones/old"))) == ["u4", "u6"]


def test_a_folder_without_usable_arrays_is_an_error(manifest: Manifest) -> None:
    source = as_npy({"x1": np.ones((2, 3))})
    with pytest.raises(CacheError, match=r"none of the 5 utterances.*'x1.npy'.*index.csv"):
        take(manifest, source)
    assert not OUT.exists()


def test_two_arrays_of_an_utterance_are_refused(manifest: Manifest) -> None:
    source = as_npy(arrays())
    (source / "more").mkdir()
    np.save(source / "more/u2.npy", np.ones((3, 4), np.float32))
    found = take(manifest, source)
    assert found.rejected == {"u2": "has two arrays, more/u2.npy and u2.npy"}


def test_equal_texts_must_have_equal_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store identifies a row by its text, so that others would get a wrong one."""
    monkeypatch.chdir(tmp_path)
    texts = {"u0": "yes", "u1": "no", "u2": "yes", "u3": "no", "u4": "no"}
    corpus = Manifest("tones", tuple(Utterance(id, text=text) for id, text in texts.items()))
    values = arrays()
    values["u2"] = values["u0"] + np.float32(1e-5)
    values["u4"] = values["u1"]
    found = take(corpus, as_npy(values))
    assert list(found.imported) == ["u0", "u2"]
    assert list(found.rejected) == ["u1", "u3", "u4"]
    assert "has the text of 'u1' and another array" in found.rejected["u3"]


def test_an_utterance_without_an_array_gets_that_of_an_equal_one(
    manifest: Manifest, private_store: Path
) -> None:
    twin = dataclasses.replace(manifest.utterances[1], id="twin")
    larger = dataclasses.replace(manifest, utterances=(twin, *manifest.utterances))
    found = take(larger, as_npy(arrays()))
    assert found.rejected == {
        "twin": "has no array; its audio is that of 'u1', whose features it gets"
    }
    assert not extracted(larger, found, private_store).rejected
    reader = CacheReader(Path("cache/tones/old"))
    assert np.array_equal(reader["twin"], reader["u1"])


def test_audio_that_changed_since_has_no_features(manifest: Manifest, private_store: Path) -> None:
    found = take(manifest, as_npy(arrays()))
    first, *rest = manifest.utterances
    edited = dataclasses.replace(first, sha256="0" * 64)
    grown = dataclasses.replace(manifest, utterances=(edited, *rest))
    done = extracted(grown, found, private_store)
    assert done.rejected == {"u0": "no features were imported for its audio"}


def test_other_features_under_the_same_entry_are_refused(
    manifest: Manifest, private_store: Path
) -> None:
    found = take(manifest, as_npy(arrays()))
    take(manifest, as_npy(arrays(width=5)))
    with pytest.raises(CheckpointError, match=r"have revision sha256:.*expected sha256:"):
        extracted(manifest, found, private_store)


def test_layers_that_do_not_divide_the_width(manifest: Manifest) -> None:
    source = as_npy(arrays(width=6))
    assert take(manifest, source, layers=3)
    assert CacheReader(OUT).spec.layers == 3
    with pytest.raises(ParamsError, match="--layers 4: frames 6 wide"):
        take(manifest, source, layers=4)
