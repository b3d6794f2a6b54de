"""A cache serves a DataLoader, with and without workers, with the values that it holds."""

from __future__ import annotations

import pickle  # noqa: TID251  as processes that prepare inputs get a backbone
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.errors import CacheError
from features.exchange.torch_dataset import CacheDataset, CachedBatch, collate
from features.stream import StreamSpec

IDS = [f"u{i}" for i in range(7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    writer = CacheWriter(spec=StreamSpec(3), provenance={}, dtype="float16")
    for number, ids in enumerate((IDS[:4], IDS[4:])):
        values = [random.normal(size=(i + 1, 3)).astype(np.float32) for i in range(len(ids))]
        rows = [writer.round(id, id, row) for id, row in zip(ids, values, strict=True)]
        writer.write(tmp_path / shard_name(number), rows)
    return tmp_path


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_are_the_rows_of_the_cache(folder: Path, workers: int) -> None:
    data = CacheDataset(folder, labels={id: i % 3 for i, id in enumerate(IDS)})
    loader = DataLoader(
        data,
        batch_size=3,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="forkserver" if workers else None,
    )
    batches: list[CachedBatch] = list(loader)
    assert [id for batch in batches for id in batch.ids] == IDS
    for batch in batches:
        expected = data.reader.batch(batch.ids)
        assert torch.equal(batch.stream.values, expected.values)
        assert torch.equal(batch.stream.mask, expected.mask)
        assert batch.labels is not None
        assert batch.labels.tolist() == [IDS.index(id) % 3 for id in batch.ids]


def test_frames_may_be_written_to_and_the_cache_stays(folder: Path) -> None:
    data = CacheDataset(folder)
    before = data.reader["u1"].copy()
    frames = data[1].frames
    assert frames.dtype == torch.float32
    frames.zero_()
    assert np.array_equal(CacheReader(folder)["u1"], before)
    assert bool(data[1].frames.any())


def test_bins_are_integers(tmp_path: Path) -> None:
    writer = CacheWriter(spec=StreamSpec(1, bins=9), provenance={}, dtype="int16")
    writer.write(tmp_path / shard_name(0), [writer.round("a", "a", np.array([1, 8]))])
    batch = collate([CacheDataset(tmp_path)[0]])
    assert batch.stream.values.tolist() == [[1, 8]]
    assert batch.stream.values.dtype == torch.int64
    assert batch.labels is None


def test_ids_and_labels_choose(folder: Path) -> None:
    assert CacheDataset(folder, ids=["u5", "u0"]).ids == ["u5", "u0"]
    assert CacheDataset(folder, labels={"u6": 0, "u2": 1, "nobody": 2}).ids == ["u2", "u6"]
    assert len(CacheDataset(folder, verify=True)) == len(IDS)
    with pytest.raises(CacheError, match=r"no features of 1 \('nobody'\)"):
        CacheDataset(folder, ids=["u0", "nobody"])
    with pytest.raises(CacheError, match="none of the utterances that have labels"):
        CacheDataset(folder, labels={"nobody": 0})


def test_a_dataset_can_be_sent_to_processes(folder: Path) -> None:
    data = CacheDataset(folder, labels={"u3": 1})
    assert data[0].frames.shape == (4, 3)
    there = pickle.loads(pickle.dumps(data))
    assert torch.equal(there[0].frames, data[0].frames)
    assert (there.spec, there[0].label) == (data.spec, 1)
