"""Several devices: shards are streamed to processes, which take over what others have not begun."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.backbone.base import Backbone, Inputs
from features.backbone.entry import BackboneEntry
from features.backbones.tone import Tone
from features.corpus.utterance import Utterance
from features.errors import MachineError, ManifestError, ParamsError
from features.extraction.engines import Shares
from features.extraction.extract import Options, extract
from features.extraction.extractor import Extractor, Recipe
from features.extraction.output import Tally
from features.extraction.plan import ShardPlan, seconds_of
from features.stream import Stream
from tests.conftest import ManifestMaker
from tests.support.paths import contents_of

TONE = BackboneEntry("tone", "tone")
SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8, 0.4, 0.9, 1.1]
TWO = Options(devices=("cpu", "cpu"), workers=1)
PATIENCE = 60.0  # seconds until a test fails that waits for another process


@given(st.integers(1, 9), st.lists(st.sampled_from(["hold", "begin", "take over"]), max_size=40))
def test_each_shard_is_begun_once(count: int, steps: list[str]) -> None:
    """Whatever the order in which processes ask."""
    shares = Shares(count)
    held: list[int] = []
    begun: list[int] = []
    for step in [*steps, *["hold"] * count, *["begin"] * count, *["take over"] * count]:
        if step == "hold" and (index := shares.hold()) is not None:
            held.append(index)
        elif step == "take over" and (index := shares.take_over()) is not None:
            begun.append(index)
        elif step == "begin" and held:
            index = held.pop(0)
            begun += [index] if shares.begin(index) else []
    assert sorted(begun) == list(range(count))


def test_the_shard_that_is_begun_last_is_taken_over_first() -> None:
    shares = Shares(4)
    assert [shares.hold() for _ in range(3)] == [0, 1, 2]
    assert shares.begin(0)
    assert shares.take_over() == 2
    assert shares.begin(1)
    assert not shares.begin(2)
    assert shares.take_over() is None
    shares.stop()
    assert shares.hold() is None


@dataclass(frozen=True)
class Watched(BackboneEntry):
    """A tone whose calls are written down, with the process that runs the network.

    Attributes:
        log: File of a line for each clip that is prepared and that is computed.
        how: What the network does before it computes.
    """

    log: Path = Path()
    how: str = "fast"

    def build(self) -> Backbone:
        """The backbone.

        Raises:
            ParamsError: In the processes of several devices, if it is to be broken.
        """
        if self.how == "broken" and multiprocessing.parent_process() is not None:
            raise ParamsError("no such device")
        return WatchedTone(self.log, self.how)


class WatchedTone(Tone):
    """The backbone of `Watched`."""

    def __init__(self, log: Path, how: str) -> None:
        super().__init__()
        self.log, self.how = log, how

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """As a tone, written down."""
        loader = multiprocessing.parent_process()
        pid = os.getpid() if loader is None else loader.pid
        _note(self.log, *(f"prepared {utterance.id} {pid}" for utterance in utterances))
        return super().prepare(utterances)

    def __call__(self, inputs: Inputs) -> Stream:
        """As a tone, once what it waits for has happened."""
        WAYS[self.how](self.log, inputs.ids)
        _note(self.log, *(f"computed {id} {os.getpid()}" for id in inputs.ids))
        return super().__call__(inputs)


def _note(log: Path, *lines: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _until(happened: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def _clips(log: Path, what: str, pid: int | None = None) -> list[str]:
    """Clips to which something was done, of one process or of all, in order."""
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [id for did, id, by in lines if did == what and pid in (None, int(by))]


def _streaming(log: Path, _ids: Sequence[str]) -> None:
    """Each clip waits for the next one of its process, in another shard, to be prepared."""
    pid = os.getpid()
    _until(
        lambda: (
            len(_clips(log, "prepared", pid)) > len(_clips(log, "computed", pid)) + 1
            or len(set(_clips(log, "prepared"))) == len(SECONDS)
        ),
        "no clip of the next shard was prepared before the last shard was computed",
    )


def _stuck(log: Path, ids: Sequence[str]) -> None:
    """The first clip takes until all others are in finished shards."""
    store = log.parent / "store"
    _until(
        lambda: "u0" not in ids or len(list(store.rglob("*.h5"))) == len(SECONDS) - 1,
        "a shard waits for a device that is busy with another one",
    )


def _killed(log: Path, _ids: Sequence[str]) -> None:
    """The process is killed at its third clip, as the system does when memory runs out."""
    if len(_clips(log, "computed", os.getpid())) == 2:
        os.kill(os.getpid(), signal.SIGKILL)


WAYS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "fast": lambda _log, _ids: None,
    "slow": lambda _log, _ids: time.sleep(0.02),
    "streaming": _streaming,
    "stuck": _stuck,
    "killed": _killed,
}


def watched(folder: Path, how: str) -> Watched:
    return Watched("tone", "tone", log=folder / "log", how=how)


@pytest.mark.slow
def test_no_shard_waits_for_a_slow_device(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    """One device is busy until the other has done all the rest; nothing is computed twice."""
    manifest = make_manifest(SECONDS, shard_seconds=0.1)  # a shard each
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "other")
    entry = watched(tmp_path, "stuck")
    done = extract(manifest, entry, tmp_path / "out", store=tmp_path / "store", options=TWO)
    assert (done.computed, done.copied) == (len(SECONDS), 0)
    assert done.seconds == pytest.approx(sum(SECONDS))
    assert sorted(_clips(entry.log, "computed")) == sorted(u.id for u in manifest)
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_the_next_shard_is_prepared_before_the_last_is_computed(
    devices: tuple[str, ...], make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS, shard_seconds=0.1)
    options = dataclasses.replace(TWO, devices=devices)
    entry = watched(tmp_path, "streaming")
    extract(manifest, entry, tmp_path / "out", store=tmp_path / "store", options=options)
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "other")
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


@pytest.mark.slow
def test_a_killed_process_ends_the_extraction_which_is_resumed(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS, shard_seconds=0.1)
    entry, store = watched(tmp_path, "killed"), tmp_path / "store"
    with pytest.raises(MachineError, match="a worker process ended before its work was done"):
        extract(manifest, entry, tmp_path / "out", store=store, options=TWO)
    again = dataclasses.replace(entry, how="fast")
    done = extract(manifest, again, tmp_path / "out", store=store)
    assert done.linked >= 1
    assert done.computed == len(SECONDS) - done.linked
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "other")
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


@pytest.mark.slow
def test_a_process_that_cannot_load_the_backbone_says_why(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    entry = watched(tmp_path, "broken")
    with pytest.raises(ParamsError, match="no such device"):
        extract(make_manifest(SECONDS), entry, tmp_path / "o", store=tmp_path / "s", options=TWO)


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_others(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """They finish what they have begun, and no further shard."""
    manifest = make_manifest(SECONDS * 4, shard_seconds=0.1)
    Path(manifest[0].audio or "").unlink()
    entry = watched(tmp_path, "slow")
    with pytest.raises(ManifestError, match=r"u0\.wav"):
        extract(manifest, entry, tmp_path / "out", store=tmp_path / "store", options=TWO)
    assert len(_clips(entry.log, "computed")) < len(manifest) - 1


def test_shards_that_others_have_begun_are_dropped(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """Neither computed, counted nor written."""
    plan = ShardPlan.of(make_manifest(SECONDS, shard_seconds=1.5), "audio", None)
    extractor, tally = Extractor(Recipe(TONE, tmp_path)), Tally()
    steps = extractor.run(
        plan, tally, seconds=seconds_of(plan), begin=lambda shard: shard.number % 2 == 0
    )
    assert sum(steps) == sum(cut.utterances for cut in plan.cuts[::2]) == tally.computed
    finished = [extractor.store.has(cut.fingerprint) for cut in plan.cuts]
    assert finished == [number % 2 == 0 for number in range(len(plan))]
