"""Batches from a copy on a device, and batches that are read ahead, are those of the caches."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.stream import StreamSpec
from pipeline.cached import resident
from pipeline.cached.resident import placed, release, resident_part
from pipeline.cached.run import run_job, train_model
from pipeline.data.batching import POOL, ordered_batches, read_ahead, shuffled_batches
from pipeline.data.examples import Examples, join
from pipeline.model.base import Unit
from pipeline.model.batch import Batch
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from tests.features.process.test_memory import SHORT_OF_MEMORY
from tests.pipeline.training.test_loop import (
    CLASSES,
    job_of,
    labels_of,
    project,
    results,
    write_cache,
)
from tests.support.machines.forked import without_seconds

KINDS = {
    "float16": (StreamSpec(5), "float16"),
    "float32": (StreamSpec(3), "float32"),
    "bins": (StreamSpec(1, bins=300), "int16"),
}


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    release()
    yield
    release()


def write(folder: Path, kind: str, labels: list[Label], longest: int) -> Path:
    """Three shards of up to `longest` frames an utterance; some have none at all."""
    spec, dtype = KINDS[kind]
    generator = np.random.default_rng(len(kind))
    writer = CacheWriter(spec=spec, provenance={"kind": kind}, dtype=dtype)
    rows = []
    for label in labels:
        length = 1 if longest == 1 else generator.integers(0, longest + 1)
        frames: Any = generator.normal(size=(length, spec.dim)).astype(np.float32)
        if spec.bins is not None:
            frames = generator.integers(0, spec.bins, length)
        rows.append(writer.round(label.id, "c", frames))
    for number in range(3):
        writer.write(folder / shard_name(number), rows[number::3])
    return folder


def examples_of(tmp_path: Path, longest: int = 9) -> Examples:
    labels = [
        dataclasses.replace(label, dialogue=f"d{(i * i) % 13}", turn=i)
        for i, label in enumerate(labels_of(60))
    ]
    slots = {kind: write(tmp_path / kind, kind, labels, longest) for kind in KINDS}
    return join(slots, labels, CLASSES)


def same(ours: Batch, theirs: Batch) -> None:
    assert ours.ids == theirs.ids
    assert ours.labels is not None
    assert theirs.labels is not None
    assert torch.equal(ours.labels, theirs.labels)
    assert list(ours.streams) == list(theirs.streams)
    for slot, stream in ours.streams.items():
        other = theirs.streams[slot]
        assert stream.values.dtype == other.values.dtype
        assert torch.equal(stream.values, other.values)
        assert torch.equal(stream.mask, other.mask)


@pytest.mark.parametrize(("unit", "longest"), [("utterance", 9), ("utterance", 1), ("dialogue", 1)])
@pytest.mark.parametrize("staging", [1, 64, resident.STAGING_BYTES])
def test_batches_are_the_same_to_the_bit(
    tmp_path: Path, unit: Unit, longest: int, staging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the pieces in which the frames are uploaded."""
    monkeypatch.setattr(resident, "STAGING_BYTES", staging)
    examples = examples_of(tmp_path, longest)
    copied = placed(examples, "cpu", part=0.5)
    assert sorted(copied.residents) == sorted(KINDS)
    for seed in range(2):
        streams = [
            shuffled_batches(these, these.labels, 7, np.random.default_rng(seed), unit=unit)
            for these in (copied, examples)
        ]
        for ours, theirs in zip(*streams, strict=True):
            same(ours, theirs)
    ordered = [ordered_batches(these, these.labels, 7, unit=unit) for these in (copied, examples)]
    for (places, ours), (others, theirs) in zip(*ordered, strict=True):
        assert places == others
        same(ours, theirs)


@pytest.mark.parametrize(("unit", "longest"), [("utterance", 9), ("dialogue", 1)])
def test_batches_that_are_read_ahead_are_the_same(tmp_path: Path, unit: Unit, longest: int) -> None:
    examples = examples_of(tmp_path, longest)
    both = (dataclasses.replace(examples, ahead=True), examples)
    shuffled = [shuffled_batches(x, x.labels, 2, np.random.default_rng(0), unit=unit) for x in both]
    for ours, theirs in zip(*shuffled, strict=True):
        same(ours, theirs)
    ordered = [ordered_batches(x, x.labels, 7, unit=unit) for x in both]
    for (places, ours), (others, theirs) in zip(*ordered, strict=True):
        assert places == others
        same(ours, theirs)


def test_a_batch_does_not_write_into_the_copy(tmp_path: Path) -> None:
    examples = placed(examples_of(tmp_path), "cpu", part=0.5)
    before = examples.batch(examples.labels[:5])
    for stream in examples.batch(examples.labels[:5]).streams.values():
        stream.values.fill_(7)
    same(examples.batch(examples.labels[:5]), before)


def test_copies_keep_the_stored_dtype(tmp_path: Path) -> None:
    placed(examples_of(tmp_path), "cpu", part=0.5)
    kinds = [copy.frames.dtype for copy in resident._held.values()]
    assert kinds == [torch.float16, torch.float32, torch.int16]


def test_jobs_share_one_copy(tmp_path: Path) -> None:
    first = placed(examples_of(tmp_path), "cpu", part=0.5)
    slots = {slot: tmp_path / slot for slot in KINDS}
    again = placed(join(slots, first.labels, CLASSES), "cpu", part=0.5)
    for slot in KINDS:
        assert again.residents[slot] is first.residents[slot]


def test_copies_of_other_caches_make_room(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    placed(examples, "cpu", part=0.5)
    kept = {"bins": examples.readers["bins"]}
    held = placed(dataclasses.replace(examples, readers=kept), "cpu", part=0.5)
    assert [id(copy) for copy in resident._held.values()] == [id(held.residents["bins"])]
    fewer = dataclasses.replace(examples, readers=kept, labels=examples.labels[:9])
    assert placed(fewer, "cpu", part=0.5).residents["bins"] is not held.residents["bins"]
    release()
    assert not resident._held


def test_what_does_not_fit_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(tmp_path)
    ids = [label.id for label in examples.labels]
    # Each has a frame of zeros at the end.
    sizes = {"float16": 10, "float32": 12, "bins": 2}
    needed = sum(
        (1 + sum(reader.length(id) for id in ids)) * sizes[slot]
        for slot, reader in examples.readers.items()
    )
    for free, fits in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(resident, "memory_bytes", lambda _, value=free: (value, value))
        release()
        assert bool(placed(examples, "cpu", part=0.5).residents) is fits
    assert not placed(examples, "cpu", part=0.0).residents
    assert not resident._held


@pytest.mark.parametrize("error", [SHORT_OF_MEMORY[0], RuntimeError("shapes differ")])
def test_what_does_not_fit_after_all_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The free memory may be in pieces, or another program's by then."""
    upload, examples = resident._upload, examples_of(tmp_path)

    def uploaded(*args: Any) -> torch.Tensor:
        if resident._held:
            raise error
        return upload(*args)

    monkeypatch.setattr(resident, "_upload", uploaded)
    if error is SHORT_OF_MEMORY[0]:
        assert not placed(examples, "cpu", part=0.5).residents
        assert not resident._held
    else:
        with pytest.raises(RuntimeError, match="shapes differ"):
            placed(examples, "cpu", part=0.5)


def test_a_copy_that_is_there_needs_no_more_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(tmp_path)
    assert placed(examples, "cpu", part=0.5).residents
    monkeypatch.setattr(resident, "memory_bytes", lambda _: (0, 0))
    assert placed(examples, "cpu", part=0.5).residents


def test_an_accelerator_without_a_copy_is_fed_ahead(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    for device, ahead, locked in (("cpu", 0, 0), ("cuda:1", 1, 1), ("xpu", 1, 0)):
        found = placed(examples, device, part=0.0)
        assert (found.ahead, found.pinned) == (bool(ahead), bool(locked))


def test_a_cpu_maps_and_processes_divide_a_device() -> None:
    assert resident_part("cpu") == 0
    assert resident_part("cuda:1") == resident.FREE_PART == 2 * resident_part("cuda", 2)
    assert min(resident.memory_bytes("cpu")) > 0


def test_processes_that_come_later_have_as_much_room(monkeypatch: pytest.MonkeyPatch) -> None:
    part, copy, free = resident.FREE_PART / 10, 5, 100
    for _ in range(10):
        monkeypatch.setattr(resident, "memory_bytes", lambda _, value=free: (value, 100))
        assert copy <= resident.room("cuda", part)
        free -= copy
    monkeypatch.setattr(resident, "memory_bytes", lambda _: (8, 100))
    assert resident.room("cuda", part) < copy  # another program holds the rest


class Silent:
    """A device that does not report its free memory."""


def test_a_device_of_unknown_memory_gets_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda _: Silent)
    assert resident.memory_bytes("mps") == (0, 0)


@pytest.mark.parametrize("train", [{}, {"mixup": 0.3, "seqaug": 0.5}])
def test_a_job_gives_the_same_bytes_either_way(tmp_path: Path, train: dict[str, Any]) -> None:
    slots = {"text": tmp_path / "text", "speech": tmp_path / "speech"}
    for number, folder in enumerate(slots.values()):
        write_cache(folder, labels_of(), 3.0, number)
    run_job(job_of(slots, tmp_path / "streamed", **train))
    run_job(dataclasses.replace(job_of(slots, tmp_path / "copied", **train), resident=0.5))
    assert bool(resident._held) is not bool(train)  # augmentation computes on the host
    assert results(tmp_path / "streamed") == results(tmp_path / "copied")


def test_dialogues_of_a_job_give_the_same_bytes_either_way(tmp_path: Path) -> None:
    labels = [
        dataclasses.replace(label, dialogue=f"d{i // 4}", splits=(split,))
        for i, (label, split) in enumerate(
            zip(labels_of(48), ["train"] * 32 + ["valid"] * 8 + ["test"] * 8, strict=True)
        )
    ]
    slots = {slot: write(tmp_path / slot, "float16", labels, 1) for slot in ("text", "speech")}
    job = Job(
        title="test",
        kind="lpgnet",
        args={"d_model": 8},
        slots=slots,
        labels=labels,
        classes=CLASSES,
        params=TrainParams(epochs=2),
        seed=0,
        fold=0,
        out=tmp_path / "streamed",
        device="cpu",
    )
    run_job(job)
    run_job(dataclasses.replace(job, out=tmp_path / "copied", resident=0.5))
    assert resident._held
    assert results(tmp_path / "streamed") == results(tmp_path / "copied")


def test_copies_are_removed_after_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = project(tmp_path, monkeypatch)
    expected = without_seconds(results(train_model(params, "m", "c", device="cpu", workers=1)))
    made: list[int] = []
    build = resident.ResidentFrames

    def counted(*args: Any) -> resident.ResidentFrames:
        made.append(1)
        return build(*args)

    monkeypatch.setattr(resident, "ResidentFrames", counted)
    monkeypatch.setattr("pipeline.cached.run.resident_part", lambda *_: 0.5)
    out = train_model(params, "m", "c", device="cpu", workers=1)
    assert len(made) == 1  # two seeds, one slot
    assert without_seconds(results(out)) == expected
    assert not resident._held


@pytest.mark.gpu
@pytest.mark.parametrize(("unit", "longest"), [("utterance", 9), ("dialogue", 1)])
def test_a_gpu_has_the_same_batches(tmp_path: Path, unit: Unit, longest: int) -> None:
    examples = examples_of(tmp_path, longest)
    for part in (0.5, 0.0):
        there = placed(examples, "cuda", part=part)
        assert bool(there.residents) is (part > 0)
        batches = [
            shuffled_batches(x, x.labels, 7, np.random.default_rng(0), unit=unit)
            for x in (there, examples)
        ]
        for ours, theirs in zip(*batches, strict=True):
            assert part > 0 or all(x.values.is_pinned() for x in ours.streams.values())
            same(ours.to("cuda").to("cpu"), theirs)


def test_one_batch_is_read_ahead_and_no_more() -> None:
    made: list[int] = []
    threads = set()

    def make(number: int) -> Batch:
        threads.add(threading.current_thread())
        made.append(number)
        return Batch({}, None, (str(number),))

    batches = read_ahead(make, range(5))
    assert made == []
    for number in range(5):
        assert next(batches).ids == (str(number),)
        wanted = list(range(min(number + 2, 5)))
        deadline = time.monotonic() + 60
        while len(made) < len(wanted):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.01)
        assert made == wanted
    assert list(batches) == []
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)
    assert list(read_ahead(make, [])) == []


def test_what_reading_raises_is_raised_when_the_batch_is_due() -> None:
    def make(number: int) -> Batch:
        if number == 2:
            raise ValueError("damaged")
        return Batch({}, None, (str(number),))

    batches = read_ahead(make, range(4))
    assert [next(batches).ids for _ in range(2)] == [("0",), ("1",)]
    with pytest.raises(ValueError, match="damaged"):
        next(batches)
    batches = read_ahead(make, range(4))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("heronry-read-ahead")]


@pytest.mark.parametrize("ahead", [False, True])
def test_draws_between_batches_come_in_the_order_they_always_did(
    tmp_path: Path, ahead: bool
) -> None:
    """Augmentation draws from the generator of the order: reading ahead must not draw before it."""
    examples = dataclasses.replace(examples_of(tmp_path), ahead=ahead)
    generator, plain, size = np.random.default_rng(3), np.random.default_rng(3), 2
    batches = shuffled_batches(examples, examples.labels, size, generator)
    found = [(batch.ids, generator.random()) for batch in batches]
    order, expected = plain.permutation(len(examples.labels)), []
    for start in range(0, len(order), POOL * size):
        rows = [examples.labels[i] for i in order[start : start + POOL * size]]
        rows.sort(key=lambda label: examples.lengths([label])[0])
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        for index in plain.permutation(len(groups)):
            ids = tuple(label.id for label in groups[index])
            expected.append((ids, plain.random()))
    assert len(order) > POOL * size  # more than one pool
    assert found == expected
    assert generator.bit_generator.state == plain.bit_generator.state
