"""A probe finds what a slot holds, and nothing where it holds nothing; conditions take it away."""

from __future__ import annotations

import csv
import errno
import tempfile
import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.stream import StreamSpec
from pipeline.data.examples import Examples, join
from pipeline.data.targets import TargetReader
from pipeline.model.checkpoint import make_model
from pipeline.model.outputs import Outputs
from pipeline.params.training import TrainParams
from pipeline.runs import probes
from pipeline.runs.conditions import cached_conditions, write_conditions
from pipeline.runs.probes import cached_vectors, fit_probe, in_parts, room, write_probes
from pipeline.training.loop import fit

CLASSES = ["calm", "angry", "sad"]
SPLITS = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
DIM = 6
BINS = 16
CLASSES_ALONE = TargetReader(("classes",), Outputs(tuple(CLASSES)))


def made_labels(count: int = 240) -> list[Label]:
    return [
        Label(f"u{i}", CLASSES[i % 3], f"s{i % 10}", splits=(SPLITS[i // 3 % 10],))
        for i in range(count)
    ]


def write(folder: Path, labels: list[Label], spec: StreamSpec, signal: float, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    dtype = "float32" if spec.bins is None else "int16"
    writer = CacheWriter(spec=spec, provenance={"kind": "test"}, dtype=dtype)
    rows = []
    for label in labels:
        length, number = generator.integers(1, 9), CLASSES.index(label.class_name)
        if spec.bins is None:
            frames = generator.normal(size=(length, DIM)).astype(np.float32)
            frames[:, number] += signal
        else:
            noise = generator.integers(0, spec.bins, length)
            frames = np.where(generator.random(length) < signal, number, noise)
        rows.append(writer.round(label.id, "c", frames))
    writer.write(folder / shard_name(0), rows)
    return folder


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    labels = made_labels()
    slots = {
        "text": write(tmp_path / "t", labels, StreamSpec(DIM), 2.0, 0),
        "speech": write(tmp_path / "s", labels, StreamSpec(DIM), 0.0, 1),
        "prosody": write(tmp_path / "p", labels, StreamSpec(1, bins=BINS), 0.4, 2),
    }
    return join(slots, labels, CLASSES)


def accuracies(path: Path, column: str) -> dict[str, float]:
    right = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            right[row[column]].append(row["label"] == row["prediction"])
    return {name: float(np.mean(values)) for name, values in right.items()}


def test_a_probe_finds_what_its_slot_holds(examples: Examples, tmp_path: Path) -> None:
    train, test = examples.split(0, "train"), examples.split(0, "test")
    vectors = {
        slot: (cached_vectors(examples, slot, train), cached_vectors(examples, slot, test))
        for slot in examples.readers
    }
    write_probes(tmp_path / "probes.csv", CLASSES_ALONE, train, test, vectors)
    found = accuracies(tmp_path / "probes.csv", "slot")
    assert found["text"] > 0.85
    assert found["prosody"] > 0.5
    assert abs(found["speech"] - 1 / 3) < 0.2  # noise: chance, within two deviations and a half


def probe(examples: Examples, train: Sequence[Label], test: Sequence[Label]) -> NDArray[np.float64]:
    """Probabilities by a probe on the text."""
    inputs = cached_vectors(examples, "text", train), cached_vectors(examples, "text", test)
    return fit_probe(*inputs, [label.class_name for label in train], CLASSES)


def test_a_probe_is_the_library_s_regression_on_time_averages(examples: Examples) -> None:
    train, test = examples.split(0, "train"), examples.split(0, "test")
    reader = examples.readers["text"]

    def means(labels: Sequence[Label]) -> np.ndarray:
        frames = [reader.batch([label.id]).unpad()[0].double() for label in labels]
        return np.stack([each.mean(0).numpy() for each in frames])

    scaler = StandardScaler().fit(means(train))
    model = LogisticRegression(max_iter=200)
    model.fit(scaler.transform(means(train)), [label.class_name for label in train])
    order = [list(model.classes_).index(name) for name in CLASSES]
    expected = model.predict_proba(scaler.transform(means(test)))[:, order]
    np.testing.assert_allclose(probe(examples, train, test), expected, atol=1e-6)


def test_bins_become_shares_of_frames(examples: Examples) -> None:
    test = examples.split(0, "test")
    shares = cached_vectors(examples, "prosody", test)
    bins = examples.readers["prosody"].batch([test[0].id]).unpad()[0].tolist()
    assert shares.shape == (len(test), BINS)
    assert shares[0].tolist() == [bins.count(number) / len(bins) for number in range(BINS)]


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    dim=st.sampled_from([8, 3000, 40_000]),
)
@settings(max_examples=60, deadline=None)
def test_frames_are_averaged_in_bounded_parts(lengths: list[int], dim: int) -> None:
    class Reader:
        spec = StreamSpec(dim)

        def lengths(self, ids: Sequence[str]) -> NDArray[np.int64]:
            return np.array([lengths[int(id)] for id in ids])

    ids = [str(number) for number in range(len(lengths))]
    parts = list(in_parts(Reader(), ids))  # type: ignore[arg-type]
    assert [id for part in parts for id in part] == ids
    for part in parts:
        longest = max(lengths[int(id)] for id in part)
        assert len(part) == 1 or 8 * len(part) * longest * dim <= 64 << 20


@pytest.mark.parametrize("slot", ["text", "prosody"])
def test_averages_are_the_same_in_any_parts(
    examples: Examples, monkeypatch: pytest.MonkeyPatch, slot: str
) -> None:
    together = cached_vectors(examples, slot, examples.labels)
    monkeypatch.setattr(probes, "_BYTES", 1)
    one_by_one = cached_vectors(examples, slot, examples.labels)
    assert together.tobytes() == one_by_one.tobytes()


def test_vectors_lie_on_the_disk_which_must_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    tracemalloc.start()
    vectors = room(1000, 128)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < vectors.nbytes / 10
    assert not vectors.any()
    vectors[:] = 1.0

    def full(_: int, begin: int, count: int) -> None:
        raise OSError(errno.ENOSPC, f"no room for {count} bytes from {begin}")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=f"no room for {vectors.nbytes} bytes from 0") as caught:
        room(1000, 128)
    assert caught.value.filename == tempfile.gettempdir()


def test_a_class_without_training_rows_gets_nothing(examples: Examples) -> None:
    train = [label for label in examples.split(0, "train") if label.class_name != "angry"]
    one = [label for label in train if label.class_name == "sad"]
    test = examples.split(0, "test")
    found = probe(examples, train, test)
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    assert (probe(examples, one, test) == [0, 0, 1]).all()


def test_conditions_take_away_what_the_model_used(examples: Examples, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make_model("concat", {"d_model": 16}, examples.specs, 3)
    test = examples.split(0, "test")
    params = TrainParams(epochs=30, lr=1e-2, batch_size=16, patience=30)
    train, valid = examples.split(0, "train"), examples.split(0, "valid")
    fit(model, examples, train=train, valid=valid, params=params, seed=0)
    write_conditions(tmp_path / "c.csv", model, cached_conditions(examples, test, 0), test)
    found = accuracies(tmp_path / "c.csv", "condition")
    names = {"without_text", "without_speech", "without_prosody", "shuffled_text"}
    assert set(found) == names
    assert found["without_speech"] > 0.8  # it held nothing
    assert found["without_text"] < found["without_speech"] - 0.1
    assert found["shuffled_text"] < found["without_speech"] - 0.2


def test_shuffling_gives_everyone_another_s_text(examples: Examples) -> None:
    test = examples.split(0, "test")
    by_name = {each.name: changed for each, changed in cached_conditions(examples, test, 5)}
    altered = by_name["shuffled_text"]
    source = altered.swapped["text"]
    assert set(source) == set(source.values()) == {label.id for label in test}
    assert all(id != other for id, other in source.items())
    ids = [label.id for label in test[:3]]
    batch = altered.batch(test[:3])
    texts = examples.readers["text"].batch([source[id] for id in ids])
    assert torch.equal(batch.streams["text"].values, texts.values)
    speech = examples.readers["speech"].batch(ids)
    assert torch.equal(batch.streams["speech"].values, speech.values)


def test_a_model_of_one_slot_is_not_left_without_it(examples: Examples) -> None:
    alone = Examples({"text": examples.readers["text"]}, examples.labels, CLASSES, examples.dropped)
    names = [each.name for each, _ in cached_conditions(alone, alone.split(0, "test"), 0)]
    assert names == ["shuffled_text"]


def test_a_probe_does_not_depend_on_the_number_of_cores() -> None:
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(960, 2048)), generator.normal(size=(96, 2048))
    targets = [CLASSES[i % 3] for i in range(len(train))]
    found = []
    for threads in (2, 1):  # with several, sums of this size come out in another order
        with threadpool_limits(threads):
            found.append(fit_probe(train, test, targets, CLASSES))
    assert found[0].tobytes() == found[1].tobytes()
