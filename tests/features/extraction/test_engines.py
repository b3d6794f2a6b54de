"""Shards are the same, however the work is distributed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry, backbone_entry
from features.backbones.tone import Tone
from features.cache.reader import CacheReader
from features.cache.shard import DEVIATION
from features.corpus.utterance import Utterance
from features.errors import CacheError, ParamsError
from features.extraction.extract import Options, extract
from features.extraction.forecast import Forecast
from features.stream import Stream
from tests.conftest import ManifestMaker
from tests.features.process.test_memory import SHORT_OF_MEMORY
from tests.support.paths import contents_of

TONE = BackboneEntry("tone", "tone")
SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8, 0.4, 0.9, 1.1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [Options(workers=2), Options(devices=("cpu", "cpu")), Options(batch_seconds=3.0)]
)
def test_results_are_those_of_one_process(
    options: Options, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "one")
    done = extract(manifest, TONE, tmp_path / "out", store=tmp_path / "two", options=options)
    assert done.computed == len(SECONDS)
    assert done.seconds == pytest.approx(sum(SECONDS))
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


class Unhurried(Tone):
    """Has a network, and takes the longer, the shorter the clip."""

    def __init__(self, *, dim: int = 8) -> None:
        super().__init__(dim=dim)
        self.network = torch.nn.Identity()

    def __call__(self, inputs: Inputs) -> Stream:
        Unhurried.seen.append((threading.current_thread().name, torch.get_num_threads()))
        time.sleep(0.02 / inputs.tensors["samples"].shape[1] * 16_000)
        return super().__call__(inputs)

    seen: ClassVar[list[tuple[str, int]]] = []


def test_clips_side_by_side_on_a_cpu_change_nothing(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(SECONDS)
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "one")
    monkeypatch.setattr("features.backbones.tone.build", Unhurried)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        extract(manifest, TONE, tmp_path / "out", store=tmp_path / "two")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")
    names, counts = zip(*Unhurried.seen, strict=True)
    assert len(set(names)) == 3
    assert set(counts) == {1}


def test_batches_side_by_side_on_a_cpu_too(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the backbone asks for several clips at once, each batch has one thread as well."""
    manifest = make_manifest(SECONDS)
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "one")
    monkeypatch.setattr("features.backbones.tone.build", Unhurried)
    monkeypatch.setattr(Unhurried, "cpu_batch_seconds", 1.2, raising=False)
    monkeypatch.setattr(Unhurried, "seen", [])
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        extract(manifest, TONE, tmp_path / "out", store=tmp_path / "two")
    finally:
        torch.set_num_threads(threads)
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")
    assert len(Unhurried.seen) < len(SECONDS)
    assert {count for _, count in Unhurried.seen} == {1}


class Small(Tone):
    """A backbone on a device that takes two utterances at most."""

    sizes: list[int]

    def __call__(self, inputs: Inputs) -> Stream:
        self.sizes.append(len(inputs.ids))
        if len(inputs.ids) > 2:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate a lot")
        return super().__call__(inputs)


def test_batches_are_halved_where_memory_runs_out(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest([0.5] * 16, shard_seconds=4.0)
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "one")
    Small.sizes = []
    monkeypatch.setattr("features.backbones.tone.build", Small)
    options = Options(batch_seconds=1e6)
    extract(manifest, TONE, tmp_path / "out", store=tmp_path / "two", options=options)
    # What failed twice is not tried again within its shard.
    assert Small.sizes == [8, 8, 4, 4, 2, 2, 2, 2] * 2
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


class Attentive(Tone):
    """Takes memory by the square of the length, and gives other bits in other batches.

    Clips of different lengths take twice as much, for their mask.
    The first attempt after `broken` calls fails in any case, as where memory is in pieces.
    """

    calls = 0
    broken = -1

    def __call__(self, inputs: Inputs) -> Stream:
        Attentive.calls += 1
        rows, samples = inputs.tensors["samples"].shape
        ragged = len(set(inputs.tensors["lengths"].tolist())) > 1
        if rows * (samples / 16_000) ** 2 * (1 + ragged) > 4.5 or self.calls == self.broken:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")
        stream = super().__call__(inputs)
        return Stream(stream.values * (1 + rows / 64), stream.mask)


def test_how_batches_are_cut_does_not_depend_on_what_ran_before(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed extraction gives the bytes of an uninterrupted one, shard by shard."""
    monkeypatch.setattr("features.backbones.tone.build", Attentive)
    # Eight of 0.75 s just fit; so do two of 1.5 s, which are half as many numbers, and four do not.
    # Three of 1 s fit if they are equally long.
    seconds = [1.5] * 4 + [0.75] * 8 + [1.0] * 5 + [0.5] * 2 + [1.0] * 6 + [0.25] * 20
    manifest = make_manifest(seconds, shard_seconds=6.0)
    options = Options(batch_seconds=6.0)
    extract(manifest, TONE, tmp_path / "out", store=tmp_path / "whole", options=options)
    sizes = [len(shard.ids) for shard in CacheReader(tmp_path / "out").shards]
    assert sizes == [4, 8, 7, 6, 20]
    for part in range(5):
        alone = dataclasses.replace(options, part=(part, 5))
        extract(manifest, TONE, tmp_path / "out", store=tmp_path / "parts", options=alone)
    extract(manifest, TONE, tmp_path / "again", store=tmp_path / "parts", options=options)
    assert contents_of(tmp_path / "again") == contents_of(tmp_path / "out")
    for broken in range(1, 8):
        monkeypatch.setattr(Attentive, "calls", 0)
        monkeypatch.setattr(Attentive, "broken", broken)
        store, out = tmp_path / f"store{broken}", tmp_path / f"out{broken}"
        extract(manifest, TONE, out, store=store, options=options)
        assert contents_of(out) == contents_of(tmp_path / "out")


def test_batches_side_by_side_are_cut_as_they_would_be_alone(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit beside others is computed alone, and cut if it does not fit then."""
    monkeypatch.setattr("features.backbones.tone.build", Crammed)
    monkeypatch.setattr(Crammed, "cpu_batch_seconds", 1.2, raising=False)
    manifest, threads = make_manifest(SECONDS), torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            store, out = tmp_path / f"store{count}", tmp_path / f"out{count}"
            done = extract(manifest, TONE, out, store=store)
            assert (done.computed, done.rejected) == (len(SECONDS), {})
    finally:
        torch.set_num_threads(threads)
    assert contents_of(tmp_path / "out1") == contents_of(tmp_path / "out3")


class Crammed(Attentive):
    """Fits nothing in a lane, and up to two rows in the main thread."""

    def __init__(self, *, dim: int = 8) -> None:
        super().__init__(dim=dim)
        self.network = torch.nn.Identity()

    def __call__(self, inputs: Inputs) -> Stream:
        if threading.current_thread() is not threading.main_thread() or len(inputs.ids) > 2:
            raise MemoryError
        return super().__call__(inputs)


class Full(Tone):
    """A device whose memory takes all but one clip, and says so in the ways that there are."""

    error: BaseException
    where = "device"

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        if self.where == "host" and any(u.id == "u3" for u in utterances):
            raise self.error
        return super().prepare(utterances)

    def __call__(self, inputs: Inputs) -> Stream:
        if self.where == "device" and "u3" in inputs.ids:
            raise self.error
        return super().__call__(inputs)


NO_MEMORY = (SHORT_OF_MEMORY[0], SHORT_OF_MEMORY[2], SHORT_OF_MEMORY[5], SHORT_OF_MEMORY[-1])


@pytest.mark.parametrize("error", NO_MEMORY)
@pytest.mark.parametrize(("where", "seconds"), [("device", None), ("device", 1e6), ("host", 1e6)])
def test_an_utterance_that_never_fits_is_rejected_and_tried_again_another_day(
    make_manifest: ManifestMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    where: str,
    seconds: float | None,
) -> None:
    manifest, options = make_manifest(SECONDS), Options(batch_seconds=seconds)
    out, store = tmp_path / "out", tmp_path / "store"
    Full.error, Full.where = error, where
    with monkeypatch.context() as small:
        small.setattr("features.backbones.tone.build", Full)
        done = extract(manifest, TONE, out, store=store, options=options)
    assert list(done.rejected) == ["u3"]
    place = "cpu" if where == "device" else "this machine"
    assert done.rejected["u3"].startswith(
        f"does not fit the memory of {place} by itself (1.2 s of audio): set `long: window` in"
    )
    assert len(CacheReader(out, verify=True)) == len(SECONDS) - 1
    done = extract(manifest, TONE, out, store=store, options=options)  # on a larger machine
    assert not done.rejected
    assert done.linked == len(CacheReader(out).shards) - 1
    assert done.computed == 1 if seconds is None else done.computed < len(SECONDS)
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "other", options=options)
    assert contents_of(out) == contents_of(tmp_path / "reference")


def test_an_error_that_is_not_about_memory_is_a_bug(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Full)
    for Full.where in ("device", "host"):
        Full.error = RuntimeError("shapes differ")
        with pytest.raises(RuntimeError, match="shapes differ"):
            extract(make_manifest(SECONDS), TONE, tmp_path / "out", store=tmp_path / "store")


def test_together_they_do_not_fit_the_host(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crowded(Tone):
        def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
            if len(utterances) > 1:
                raise MemoryError
            return super().prepare(utterances)

    monkeypatch.setattr("features.backbones.tone.build", Crowded)
    options = Options(batch_seconds=1e6)
    with pytest.raises(CacheError, match="together: set --batch-seconds to less"):
        extract(make_manifest(SECONDS), TONE, tmp_path / "o", store=tmp_path / "s", options=options)


class Overflowing(Tone):
    """In half precision the longest clip of each shard leaves the range, in float32 none does."""

    def __call__(self, inputs: Inputs) -> Stream:
        stream = super().__call__(inputs)
        if not torch.is_autocast_enabled("cpu"):
            return stream
        factor = float("inf") if inputs.ids[0] in ("u1", "u3") else 1.001
        return Stream(stream.values * factor, stream.mask)


def test_an_overflow_in_half_precision_loses_its_utterance_alone(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the precision changes is then measured on the next utterance of the shard."""
    monkeypatch.setattr("features.backbones.tone.build", Overflowing)
    entry = BackboneEntry("tone", "tone", compute_dtype="float16")
    manifest = make_manifest([0.5, 1.0, 0.5, 1.0, 0.4])
    done = extract(manifest, entry, tmp_path / "out", store=tmp_path / "store")
    assert done.rejected == dict.fromkeys(("u1", "u3"), "its features are not finite")
    for shard in CacheReader(tmp_path / "out", verify=True).shards:
        assert shard.provenance["compute_deviation"] == pytest.approx(0.001, rel=0.05)


class Loud(Tone):
    def __call__(self, inputs: Inputs) -> Stream:
        stream = super().__call__(inputs)
        factor = 1e6 if inputs.ids == ("u3",) else 1.0
        return Stream(stream.values * factor, stream.mask)


def test_a_value_that_does_not_fit_loses_its_utterance_alone(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Loud)
    done = extract(make_manifest(SECONDS), TONE, tmp_path / "out", store=tmp_path / "store")
    assert list(done.rejected) == ["u3"]
    assert "do not fit float16; set `store_dtype: float32`" in done.rejected["u3"]
    assert len(CacheReader(tmp_path / "out", verify=True)) == len(SECONDS) - 1


class Counting(Tone):
    seen: list[str]

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        self.seen += [utterance.id for utterance in utterances]
        return super().prepare(utterances)


def test_equal_audio_is_computed_once(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_manifest(SECONDS)
    again = tuple(dataclasses.replace(u, id=f"{u.id} again") for u in first)
    both = dataclasses.replace(first, utterances=(*first.utterances, *again), shard_seconds=100.0)
    Counting.seen = []
    monkeypatch.setattr("features.backbones.tone.build", Counting)
    done = extract(both, TONE, tmp_path / "out", store=tmp_path / "store")
    assert sorted(Counting.seen) == sorted(u.id for u in first)
    assert (done.computed, done.copied) == (8, 8)
    reader = CacheReader(tmp_path / "out", verify=True)
    for utterance in first:
        assert (reader[utterance.id] == reader[f"{utterance.id} again"]).all()


class Narrow(Tone):
    """Float32 needs twice the memory of bfloat16, and the longest clip of a shard then too much."""

    def __call__(self, inputs: Inputs) -> Stream:
        if inputs.ids[0] in ("u1", "u3") and not torch.is_autocast_enabled("cpu"):
            raise RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")
        stream = super().__call__(inputs)
        return Stream(stream.values * (1 + torch.is_autocast_enabled("cpu") / 64), stream.mask)


def test_a_deviation_that_does_not_fit_is_measured_on_the_next_batch(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All utterances have features; a shard of which nothing can be measured is finished too."""
    monkeypatch.setattr("features.backbones.tone.build", Narrow)
    entry = BackboneEntry("tone", "tone", compute_dtype="bfloat16")
    manifest = make_manifest([0.5, 1.0, 0.5, 1.0], shard_seconds=1.5)
    done = extract(manifest, entry, tmp_path / "out", store=tmp_path / "store")
    assert not done.rejected
    for shard in CacheReader(tmp_path / "out", verify=True).shards:
        if len(shard.ids) == 1:
            assert DEVIATION not in shard.provenance
        else:
            assert shard.provenance[DEVIATION] == pytest.approx(1 / 64, rel=0.05)


class Linear(Tone):
    """Ends in a product, which autocast computes in the lower precision."""

    def __call__(self, inputs: Inputs) -> Stream:
        stream = super().__call__(inputs)
        return Stream(stream.values @ torch.eye(8), stream.mask)


def test_reduced_precision_records_its_deviation(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Linear)
    manifest = make_manifest(SECONDS)
    entry = backbone_entry("tone", {"compute_dtype": "bfloat16"})
    extract(manifest, entry, tmp_path / "out", store=tmp_path / "store")
    provenance = CacheReader(tmp_path / "out", verify=True).provenance
    assert 0 < provenance[DEVIATION] < 0.1
    extract(manifest, TONE, tmp_path / "exact", store=tmp_path / "store")
    assert DEVIATION not in CacheReader(tmp_path / "exact").provenance


def test_forecast_is_announced_and_approximately_right(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    forecasts: list[Forecast] = []
    options = Options(announce=forecasts.append)
    manifest = make_manifest(SECONDS)
    for _ in range(2):
        extract(manifest, TONE, tmp_path / "out", store=tmp_path / "store", options=options)
    reader = CacheReader(tmp_path / "out")
    size = sum(shard.frames.nbytes for shard in reader.shards)
    assert forecasts[0].compute == len(SECONDS)
    assert forecasts[0].bytes == pytest.approx(size, rel=0.05)
    assert (forecasts[1].compute, forecasts[1].finished) == (0, len(reader.shards))


def test_ray_without_ray_is_a_clear_error(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParamsError, match=r"pip install -e '\.\[ray\]'"):
        extract(
            make_manifest([0.5]),
            TONE,
            tmp_path / "out",
            store=tmp_path / "store",
            options=Options(engine="ray"),
        )


CLUSTER = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
import ray
from features.backbone.entry import BackboneEntry
from features.extraction.extract import Options, extract
from features.corpus.manifest import Manifest

folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
store = folder / "store"

def lose_one():
    while len(list(store.rglob("*.h5"))) < 3:
        time.sleep(0.001)
    cluster.remove_node(nodes[0], allow_graceful=False)
    print("one of two hosts is gone", flush=True)

def left():
    nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    return len(nodes)

thread = threading.Thread(target=lose_one)
thread.start()
done = extract(Manifest.read(folder / "utterances"), BackboneEntry("tone", "tone"),
               folder / "out", store=store, options=Options(engine="ray"))
thread.join()
deadline = time.monotonic() + 120
while left() > 1 and time.monotonic() < deadline:  # the cluster takes a while to notice
    time.sleep(0.2)
print(left(), "worker left")
print(done.computed, "computed")
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_ray_cluster_that_loses_a_host(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (python -m pip install -e '.[ray]')")
    manifest = make_manifest([0.5 + 0.1 * (i % 5) for i in range(120)])
    manifest.write(tmp_path / "utterances")
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "other")
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "one of two hosts is gone" in done.stdout
    assert "1 worker left" in done.stdout
    assert "120 computed" in done.stdout
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")
