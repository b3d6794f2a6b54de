"""Shards are read as written, equal rows give equal bytes, and damage is noticed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from features.cache.reader import Access, CacheReader
from features.cache.shard import Row, SpooledRow, read_shard, shard_name
from features.cache.writer import HDF5_VERSION, CacheWriter, Spool
from features.errors import CacheError
from features.process.memory import available_bytes
from features.stream import Stream, StreamSpec
from tests.support.paths import DATA

ARCHIVES = DATA / "archives"
ids = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=9)
PROVENANCE = {"kind": "test", "weights_sha256": "0" * 64}


def rows_of(lengths: dict[str, int], dim: int = 3, dtype: str = "float16") -> list[Row]:
    generator = np.random.default_rng(len(lengths))
    writer = CacheWriter(spec=StreamSpec(dim), provenance=PROVENANCE, dtype=dtype)
    return [
        writer.round(id, f"content of {id}", generator.normal(size=(length, dim)).astype("f4"))
        for id, length in lengths.items()
    ]


def write(
    folder: Path, rows: Sequence[Row | SpooledRow], number: int = 0, dtype: str = "float16"
) -> Path:
    writer = CacheWriter(spec=StreamSpec(3), provenance=PROVENANCE, dtype=dtype)
    path = folder / shard_name(number)
    path.unlink(missing_ok=True)
    writer.write(path, rows)
    return path


@given(st.dictionaries(ids, st.integers(0, 7), max_size=6), st.sampled_from(["float16", "float32"]))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, lengths: dict[str, int], dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    rows = rows_of(lengths, dtype=dtype)
    write(folder, rows, dtype=dtype)
    reader = CacheReader(folder, verify=True)
    assert list(reader) == list(lengths)
    for row in rows:
        assert np.array_equal(reader[row.id], row.frames)
        assert reader[row.id].dtype == dtype
        assert reader.length(row.id) == len(row.frames)
    assert reader.spec == StreamSpec(3)
    assert reader.provenance == PROVENANCE


def test_bins_are_stored_as_integers(tmp_path: Path) -> None:
    spec = StreamSpec(dim=1, bins=256, hop_seconds=0.02)
    writer = CacheWriter(spec=spec, provenance={}, dtype="int16")
    writer.write(tmp_path / shard_name(0), [writer.round("a", "c", np.array([1, 255]))])
    reader = CacheReader(tmp_path)
    assert reader["a"].dtype == np.int16
    assert reader["a"].tolist() == [1, 255]
    assert reader.spec == spec


def test_reading_copies_nothing(tmp_path: Path) -> None:
    write(tmp_path, rows_of({"a": 5, "b": 2}))
    reader = CacheReader(tmp_path)
    assert np.shares_memory(reader["a"], reader.shards[0].frames)
    with pytest.raises(ValueError, match="read-only"):
        reader["a"][0] = 0


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path, rows_of({"a": 5, "b": 0, "ö": 1})).read_bytes()
    assert write(tmp_path, rows_of({"a": 5, "b": 0, "ö": 1})).read_bytes() == first


@pytest.mark.parametrize("lengths", [[], [0], [0, 1, 0], [3, 0, 9000], [1] * 700])
def test_bytes_are_those_that_hdf5_writes_by_itself(tmp_path: Path, lengths: list[int]) -> None:
    """Though it never sees the frames, which are written block by block."""
    rows = rows_of({f"u{number}": length for number, length in enumerate(lengths)})
    path = write(tmp_path, rows)
    expected, image = read_shard(path), io.BytesIO()
    with (
        h5py.File(path, "r") as made,
        h5py.File(image, "w", libver=(HDF5_VERSION, HDF5_VERSION)) as file,
    ):
        frames = file.create_dataset("frames", made["frames"].shape, "f2", track_times=False)
        for row, start in zip(rows, expected.offsets, strict=False):
            if len(row.frames):
                frames[start : start + len(row.frames)] = row.frames
        for name in ("offsets", "crc32", "rounding", "ids", "contents"):
            file.create_dataset(name, data=made[name][:], track_times=False)
        for name in ("version", "format", "spec", "provenance", "rejected", "checksum"):
            value = made.attrs[name]
            file.attrs[name] = value if name == "version" else np.bytes_(value)
    assert path.read_bytes() == image.getvalue()


def test_spooled_rows_are_stored_as_others(tmp_path: Path) -> None:
    rows = rows_of({"a": 5, "long": 400_000, "empty": 0, "b": 2})
    expected = write(tmp_path, rows).read_bytes()
    spool, mixed = Spool(tmp_path), list[Row | SpooledRow](rows)
    for place in (1, 2):
        row, begin = rows[place], spool.bytes
        for part in np.array_split(row.frames, 7):
            spool.append(part)
        stored = spool.since(begin, "float16", (3,))
        mixed[place] = SpooledRow(row.id, row.content, stored, row.rounding)
    assert write(tmp_path, mixed).read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == [shard_name(0)]


def test_rounding_error_is_bounded_as_recorded(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    writer = CacheWriter(spec=StreamSpec(3), provenance={}, dtype="float16")
    writer.write(tmp_path / shard_name(0), [writer.round("a", "c", values)])
    error = np.abs(CacheReader(tmp_path)["a"].astype(np.float64) - values).max()
    assert 0 < error == read_shard(tmp_path / shard_name(0)).rounding[0]


@pytest.mark.parametrize("block", [1, 4, 7, 1000])
def test_values_are_rounded_and_refused_in_blocks_as_at_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.cache.writer.BLOCK", block)
    writer = CacheWriter(spec=StreamSpec(3), provenance={}, dtype="float16")
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    row = writer.round("a", "c", values)
    assert row.rounding == np.abs(row.frames.astype(np.float32) - values).max()
    for place in range(5):
        for value in (7e4, -np.inf, np.nan):
            loud = values.copy()
            loud[place, 1] = value
            with (
                np.errstate(over="ignore"),
                pytest.raises(CacheError, match=r"'loud'.*store_dtype: float32"),
            ):
                writer.round("loud", "c", loud)


def test_truncated_shards_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, rows_of({"a": 500}))
    whole = path.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 9, 0):
        path.unlink()
        path.write_bytes(whole[:kept])
        with pytest.raises(CacheError, match=rf"{path.name}.*(truncated|no readable)"):
            CacheReader(tmp_path, verify=True)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / shard_name(0), "w") as file:
        file["frames"] = np.zeros(3)
    with pytest.raises(CacheError, match="not written by heronry"):
        CacheReader(tmp_path)


def test_later_versions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, rows_of({"a": 5}))
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(CacheError, match=r"version 99.*upgrade"):
        CacheReader(tmp_path)


def test_an_altered_byte_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, rows_of({"a": 50, "b": 50}))
    whole = bytearray(path.read_bytes())
    frames = read_shard(path).row(1).frames.tobytes()
    place = bytes(whole).index(frames) + 7
    whole[place] ^= 1
    path.unlink()
    path.write_bytes(whole)
    CacheReader(tmp_path)
    with pytest.raises(CacheError, match=r"damaged \(frames of \['b'\]\)"):
        CacheReader(tmp_path, verify=True)


def test_missing_shard_in_the_middle(tmp_path: Path) -> None:
    write(tmp_path, rows_of({"a": 5}), 0)
    write(tmp_path, rows_of({"b": 5}), 2)
    with pytest.raises(CacheError, match=r"shard-00001.h5 was expected"):
        CacheReader(tmp_path)


def test_shards_of_different_backbones_are_refused(tmp_path: Path) -> None:
    write(tmp_path, rows_of({"a": 5}), 0)
    other = CacheWriter(spec=StreamSpec(3), provenance={"kind": "other"}, dtype="float16")
    other.write(tmp_path / shard_name(1), rows_of({"b": 5}))
    with pytest.raises(CacheError, match="different backbones"):
        CacheReader(tmp_path)


def test_an_utterance_in_two_shards_is_refused(tmp_path: Path) -> None:
    write(tmp_path, rows_of({"a": 5}), 0)
    write(tmp_path, rows_of({"a": 5}), 1)
    with pytest.raises(CacheError, match="two shards"):
        CacheReader(tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no shards.*dvc pull"):
        CacheReader(tmp_path)


@pytest.mark.parametrize("folder", sorted(ARCHIVES.glob("v*")), ids=lambda folder: folder.name)
def test_every_past_version_stays_readable(folder: Path) -> None:
    reader = CacheReader(folder, verify=True)
    assert list(reader) == ["first", "empty", "zweite Äußerung"]
    assert reader["first"].tolist() == [[0.5, -1.0], [2.0, 0.25], [0.0, 65504.0]]
    assert reader["empty"].shape == (0, 2)
    assert reader["zweite Äußerung"].tolist() == [[-0.125, 3.0]]
    assert reader.spec == StreamSpec(dim=2, hop_seconds=1 / 50)
    assert reader.shards[0].rejected == {"broken": "cannot be decoded"}


def test_an_archive_exists_for_the_version_that_is_written() -> None:
    from features.cache.shard import VERSION

    assert (ARCHIVES / f"v{VERSION}" / shard_name(0)).is_file()


@pytest.mark.parametrize("access", ["map", "read"])
@pytest.mark.parametrize("stored", ["float32", "int16"])
def test_values_of_the_stored_dtype_are_copied(tmp_path: Path, access: Access, stored: str) -> None:
    bins = 256 if stored == "int16" else None
    spec = StreamSpec(dim=1 if bins else 3, bins=bins)
    shape = (-1,) if bins else (-1, spec.dim)
    rows = [np.arange(length * spec.dim).astype(stored).reshape(shape) for length in (4, 0, 2)]
    writer = CacheWriter(spec=spec, provenance={}, dtype=stored)
    given = [Row(str(number), f"of {number}", row) for number, row in enumerate(rows)]
    writer.write(tmp_path / shard_name(0), given)
    reader = CacheReader(tmp_path, access=access)
    values = reader.batch(["2", "0", "1"], dtype=getattr(torch, stored)).values
    wanted = Stream.pad([torch.from_numpy(rows[number]) for number in (2, 0, 1)]).values
    assert values.dtype == wanted.dtype
    assert torch.equal(values, wanted)


def test_available_memory_is_the_smallest_bound(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (groups / "job" / "step").mkdir(parents=True)
    assert (
        available_bytes(proc=proc, control_groups=groups) > 2**20
    )  # no bound is known: all memory
    (proc / "meminfo").write_text("MemTotal: 90 kB\nMemAvailable:   80 kB\n")
    assert available_bytes(proc=proc, control_groups=groups) == 80 * 1024
    (groups / "job" / "memory.max").write_text("4096\n")
    (groups / "job" / "step" / "memory.max").write_text("max\n")
    assert available_bytes(proc=proc, control_groups=groups) == 80 * 1024
    (proc / "self" / "cgroup").write_text("0::/job/step\n")
    assert available_bytes(proc=proc, control_groups=groups) == 4096
