"""Batches equal their rows, by map and by reads; no file stays open, no batch is overwritten."""

from __future__ import annotations

import copy
import errno
import os
import pickle  # noqa: TID251  as training sends readers to its processes
import resource
import subprocess
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import features.cache.frames
import features.cache.gather
import features.cache.reader
from features.cache.frames import StoredFrames, identity
from features.cache.reader import Access, CacheReader
from features.cache.shard import Row, shard_name
from features.cache.writer import CacheWriter
from features.errors import CacheError, DamagedShardError
from features.stream import Stream, StreamSpec

BOTH = pytest.mark.parametrize("access", ["map", "read"])
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def write(folder: Path, lengths: list[list[int]], dim: int = 3) -> Path:
    """A cache with one shard per list; ids are "<shard>.<row>"."""
    generator = np.random.default_rng(0)
    writer = CacheWriter(spec=StreamSpec(dim), provenance={}, dtype="float16")
    for number, shard in enumerate(lengths):
        frames = [generator.normal(size=(length, dim)).astype("f2") for length in shard]
        rows = [Row(f"{number}.{i}", f"of {number}.{i}", row) for i, row in enumerate(frames)]
        writer.write(folder / shard_name(number), rows)
    return folder


def padded(reader: CacheReader, ids: list[str]) -> Stream:
    """The slow way: rows one by one, converted by numpy, padded by torch."""
    return Stream.pad([torch.from_numpy(reader[id].astype(np.float32)) for id in ids])


@BOTH
@given(
    lengths=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=3)
)
def test_a_compact_reader_is_the_same_in_another_process(
    tmp_path_factory: pytest.TempPathFactory, access: Access, lengths: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    reader = CacheReader(write(folder, lengths), access=access)
    ids = list(reader)
    size = len(pickle.dumps(compact := reader.compact(folder / "arrays")))
    assert size < 4000 * len(lengths)  # one for each shard, none for an utterance
    sent: CacheReader = pickle.loads(pickle.dumps(compact))
    assert list(sent) == ids
    assert sent.lengths(ids).tolist() == [reader.length(id) for id in ids]
    one, other = sent.batch(ids[::-1]), reader.batch(ids[::-1])
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.mask, other.mask)
    assert {shard.checksum for shard in sent.shards} == {shard.checksum for shard in reader.shards}
    for absent in ("0", "0.00", "zz", "0.1 and more than any other"):
        assert absent not in sent
        with pytest.raises(KeyError):
            sent.lengths([ids[0], absent])


def mapped(folder: Path) -> bool:
    """Whether this process has mapped any file of the folder."""
    return str(folder) in Path("/proc/self/maps").read_text()


@pytest.mark.slow
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4).filter(any),
    st.randoms(use_true_random=False),
    st.sampled_from(["map", "read"]),
    st.sampled_from(DTYPES),
)
def test_a_batch_is_its_rows_padded(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[list[int]],
    random: st.DrawFn,
    access: Access,
    dtype: torch.dtype,
) -> None:
    reader = CacheReader(write(tmp_path_factory.mktemp("cache"), lengths), access=access)
    ids = random.choices(list(reader), k=5)  # type: ignore[attr-defined]
    stream, wanted = reader.batch(ids, dtype=dtype), padded(reader, ids)
    assert torch.equal(stream.values, wanted.values.to(dtype))
    assert torch.equal(stream.mask, wanted.mask)
    assert stream.values.is_contiguous()


@BOTH
def test_bins_become_integers_that_index(tmp_path: Path, access: Access) -> None:
    writer = CacheWriter(spec=StreamSpec(dim=1, bins=256), provenance={}, dtype="int16")
    rows = [writer.round("a", "of a", np.array([1, 255])), writer.round("b", "of b", np.array([7]))]
    writer.write(tmp_path / shard_name(0), rows)
    stream = CacheReader(tmp_path, access=access).batch(["b", "a"])
    assert stream.values.dtype == torch.int64
    assert stream.values.tolist() == [[7, 0], [1, 255]]
    assert stream.mask.tolist() == [[True, False], [True, True]]


@BOTH
def test_batches_of_nothing(tmp_path: Path, access: Access) -> None:
    reader = CacheReader(write(tmp_path, [[0, 0], [1]]), access=access)
    assert reader.batch([]).values.shape == (0, 0, 3)
    assert reader.batch(["0.0", "0.1"]).values.shape == (2, 0, 3)
    assert reader["0.0"].shape == (0, 3)


def test_both_accesses_agree_and_are_read_only(tmp_path: Path) -> None:
    write(tmp_path, [[5, 2], [3]])
    by_map, by_reads = (CacheReader(tmp_path, access=access) for access in ("map", "read"))
    for id in by_map:
        assert np.array_equal(by_map[id], by_reads[id])
        assert by_map[id].dtype == by_reads[id].dtype
        with pytest.raises(ValueError, match="read-only"):
            by_reads[id][0] = 0
    assert not np.shares_memory(by_reads["0.0"], by_reads["0.0"])


def test_a_cache_is_mapped_if_it_fits_half_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [[5, 2], [3]])
    size = (5 + 2 + 3) * 3 * 2
    for available, access in ((2 * size, "map"), (2 * size - 1, "read")):
        monkeypatch.setattr(features.cache.reader, "available_bytes", lambda value=available: value)
        assert CacheReader(tmp_path).access == access
        assert CacheReader(tmp_path, access="map").access == "map"
        assert CacheReader(tmp_path, access="read").access == "read"


@BOTH
def test_more_shards_than_files_may_be_open(tmp_path: Path, access: Access) -> None:
    write(tmp_path, [[1]] * 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (held + features.cache.gather.OPEN_AT_ONCE + 20, hard)
    )
    try:
        reader = CacheReader(tmp_path, access=access, verify=True)
        stream = reader.batch(list(reader))
        assert torch.equal(stream.values, padded(reader, list(reader)).values)
        # Fewer, where files that another test has left open were closed meanwhile.
        assert len(list(Path("/proc/self/fd").iterdir())) <= held
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_comparing_checksums_and_reading_map_nothing(tmp_path: Path) -> None:
    """Mapped pages that were touched count as memory of the process."""
    reader = CacheReader(write(tmp_path, [[5]]), verify=True, access="read")
    reader.batch(["0.0"])
    assert not mapped(tmp_path)
    by_map = CacheReader(tmp_path, access="map")
    row = by_map["0.0"]
    assert mapped(tmp_path)
    assert len(row) == 5


def test_a_copy_for_another_process_has_no_frames(tmp_path: Path) -> None:
    reader = CacheReader(write(tmp_path, [[5]]), access="map")
    row = reader["0.0"]
    copied = copy.deepcopy(reader)
    assert "_mapped" in vars(reader.shards[0].stored)
    assert "_mapped" not in vars(copied.shards[0].stored)
    assert np.array_equal(copied["0.0"], row)


@BOTH
def test_replaced_shards_are_noticed(tmp_path: Path, access: Access) -> None:
    reader = CacheReader(write(tmp_path, [[5, 3]]), access=access)
    write(tmp_path, [[3, 5]])
    for read in (lambda: reader["0.0"], lambda: reader.batch(["0.0"])):
        with pytest.raises(CacheError, match="replaced while it was being read"):
            read()
    (tmp_path / shard_name(0)).unlink()
    with pytest.raises(CacheError, match="can no longer be opened"):
        reader.batch(["0.0"])


@BOTH
def test_reading_arrays_imports_no_torch(tmp_path: Path, access: Access) -> None:
    write(tmp_path, [[5, 3], [2]])
    program = (
        "import sys; from pathlib import Path\n"
        "from features.cache.reader import CacheReader\n"
        f"reader = CacheReader(Path({str(tmp_path)!r}), access={access!r}, verify=True)\n"
        "assert sum(len(reader[id]) for id in reader) == 10\n"
        "assert 'torch' not in sys.modules, sys.modules['torch']\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_pages_are_unmapped_with_the_last_array(tmp_path: Path) -> None:
    reader = CacheReader(write(tmp_path, [[5]]), access="map")
    row = reader["0.0"]
    del reader
    assert mapped(tmp_path)
    assert np.isfinite(row).all()
    del row
    assert not mapped(tmp_path)


def test_a_map_outlives_its_file(tmp_path: Path) -> None:
    reader = CacheReader(write(tmp_path, [[5]]), access="map")
    before = reader.batch(["0.0"])
    (tmp_path / shard_name(0)).unlink()
    assert torch.equal(reader.batch(["0.0"]).values, before.values)


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = CacheReader(write(tmp_path, [[5, 9], [4]]), access="read")
    wanted = padded(CacheReader(tmp_path, access="map"), list(reader))
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda f, into, at: whole(f, [into[0][:7]], at))
    assert torch.equal(reader.batch(list(reader)).values, wanted.values)
    reader.shards[0].verify()


def test_frames_beyond_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"12345678")
    stored = StoredFrames(path, 4, np.dtype("<f2"), (9,), identity(path.stat()))
    with stored.open() as file, pytest.raises(DamagedShardError, match="ends at byte 8"):
        stored.read(file, 0, np.empty(9, "<f2"))


def test_a_refused_map_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(features.cache.frames, "map_pages", refuse)
    reader = CacheReader(write(tmp_path, [[5]]), access="map")
    with pytest.raises(CacheError, match=r'cannot be mapped.*access="read"'):
        reader.batch(["0.0"])


@pytest.mark.parametrize("keep", ["tensor", "view", "array"])
def test_memory_is_reused_only_without_references(tmp_path: Path, keep: str) -> None:
    dim = features.cache.gather.WORTH_REUSING_BYTES // 4
    reader = CacheReader(write(tmp_path, [[1], [1]], dim=dim))
    stream = reader.batch(["0.0"])
    place, wanted = stream.values.data_ptr(), stream.values.clone()
    kept: Any = stream.values if keep == "tensor" else stream.values[:, :, 1:]
    kept = kept.numpy() if keep == "array" else kept
    del stream
    other = reader.batch(["1.0"])
    assert other.values.data_ptr() != place
    assert torch.equal(torch.as_tensor(kept), wanted if keep == "tensor" else wanted[:, :, 1:])
    del kept, other
    again = [reader.batch([id]) for id in reader]
    assert place in {stream.values.data_ptr() for stream in again}


@BOTH
def test_batches_that_are_referenced_are_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: Access
) -> None:
    """With batches of all sizes, whose memory is reused without being cleared."""
    monkeypatch.setattr(features.cache.gather, "WORTH_REUSING_BYTES", 1)
    monkeypatch.setattr(features.cache.gather, "CACHED_BYTES", 1)  # so that reads come in groups
    monkeypatch.setattr(features.cache.gather, "_free", defaultdict(list))
    reader = CacheReader(write(tmp_path, [[5, 9, 1, 7], [3, 2]]), access=access)
    generator = np.random.default_rng(0)
    places: list[int] = []
    held: deque[tuple[Tensor, Tensor]] = deque(maxlen=4)  # a view or all of a batch, and a copy
    for number in range(60):
        ids = generator.choice(list(reader), size=3).tolist()
        dtype = DTYPES[number % len(DTYPES)]
        values, wanted = reader.batch(ids, dtype=dtype).values, padded(reader, ids).values
        assert torch.equal(values, wanted.to(dtype))
        places.append(values.data_ptr())
        view = values[1:, ::2] if number % 2 else values
        if number % 3:
            held.append((view, view.clone()))
        else:
            values.fill_(torch.nan)
        del values, view
        assert all(torch.equal(kept, copy) for kept, copy in held)
    assert len(set(places)) < len(places)
