"""An extraction that was stopped in any way is resumed and gives the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from features.backbone.entry import BackboneEntry, backbone_entry
from features.cache.shard import read_shard
from features.cache.writer import write_shard
from features.corpus.manifest import Manifest
from features.errors import MachineError
from features.extraction.extract import Extraction, extract
from features.extraction.store import WorkStore
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import whisper
from tests.support.paths import contents_of

TONE = BackboneEntry("tone", "tone")
CHILD = """
import json, os, resource, signal, sys
from pathlib import Path
from features.backbone.entry import backbone_entry
from features.extraction.extract import Options, extract
from features.corpus.manifest import Manifest
import features.backbones.tone, features.backbones.whisper

def work(folder, entry, workers=0, limit=0, siblings=()):
    os.setsid()
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    folder = Path(folder)
    extract(Manifest.read(folder / "utterances"), backbone_entry("x", entry), folder / "out",
            store=folder / "store", options=Options(workers=workers,
            siblings=tuple(backbone_entry("y", each) for each in siblings)))

if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                work(**json.loads(line))
                status = 0
            except Exception as error:
                print(f"{type(error).__name__}: {error!s:.900}".replace("\\n", " "), flush=True)
            finally:
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """A process that has imported everything and forks an extraction for each request."""

    def __init__(self) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # h5py's own complaints about a full disk
            text=True,
        )

    def start(self, folder: Path, **options: Any) -> int:
        """Begin an extraction in a process group of its own; its process id."""
        assert self.process.stdin is not None
        request = {"folder": str(folder), "entry": {"kind": "tone"}, **options}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        self.child = self._number()
        return self.child

    def kill(self, how: signal.Signals) -> None:
        """Signal the whole group of the extraction begun last."""
        os.killpg(self.child, how)

    def wait(self) -> int:
        """Exit status of the extraction begun last."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().lstrip("-").isdigit():
                return int(line)
            self.output += line
        raise AssertionError(f"the server ended: {self.output}")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server.process:
        yield server
        assert server.process.stdin is not None
        server.process.stdin.close()


def finish(folder: Path, entry: BackboneEntry = TONE) -> Extraction:
    manifest = Manifest.read(folder / "utterances")
    return extract(manifest, entry, folder / "out", store=folder / "store")


def sealed(folder: Path) -> int:
    return len(list((folder / "store").rglob("*.h5")))


@pytest.fixture
def interrupted(make_manifest: ManifestMaker, tmp_path: Path) -> Path:
    """A folder with a corpus of some fifty shards, and what an uninterrupted run makes of it."""
    manifest = make_manifest([0.5 + 0.1 * (i % 5) for i in range(160)])
    manifest.write(tmp_path / "utterances")
    extract(manifest, TONE, tmp_path / "reference", store=tmp_path / "other store")
    return tmp_path


@pytest.mark.slow
def test_kill_at_any_instant_then_resume(interrupted: Path, server: Server) -> None:
    """Twenty kills of the whole process group; every shard that was finished is used."""
    chance = random.Random(0)
    shards = len(contents_of(interrupted / "reference")) - 1
    killed = most = 0
    while killed < 20:
        target = min(sealed(interrupted) + chance.randrange(6), shards)
        server.start(interrupted)
        _until_sealed(interrupted, target)
        time.sleep(chance.uniform(0.0, 0.01))
        server.kill(signal.SIGKILL)
        killed += server.wait() == -signal.SIGKILL
        most = max(most, sealed(interrupted))
        if sealed(interrupted) >= shards - 6:
            for path in (interrupted / "store").rglob("*.h5"):
                path.unlink()  # nearly done: start again
    reused = sealed(interrupted)
    assert finish(interrupted).linked == reused
    assert most > 6
    _is_indexed(interrupted)
    assert contents_of(interrupted / "out") == contents_of(interrupted / "reference")
    assert not list((interrupted / "store").rglob(".*"))


@pytest.mark.slow
def test_terminated_with_workers_then_resume(interrupted: Path, server: Server) -> None:
    server.start(interrupted, workers=2)
    _until_sealed(interrupted, 1)
    server.kill(signal.SIGTERM)
    assert server.wait() == -signal.SIGTERM
    reused = sealed(interrupted)
    assert finish(interrupted).linked == reused > 0
    assert contents_of(interrupted / "out") == contents_of(interrupted / "reference")


@pytest.mark.slow
def test_full_disk_then_resume(interrupted: Path, server: Server) -> None:
    """A limit on file sizes stands for a full disk: the writer gets an error from the system."""
    server.start(interrupted, limit=4096)
    assert server.wait() == 1
    assert re.search(r"MachineError: cannot read or write .*\.h5 \(File too large\)", server.output)
    assert "What was finished is kept" in server.output
    assert sealed(interrupted) == 0
    assert not list((interrupted / "store").rglob(".*.h5-*"))
    finish(interrupted)
    assert contents_of(interrupted / "out") == contents_of(interrupted / "reference")


@pytest.mark.slow
def test_a_full_disk_keeps_finished_shards(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def full_after_three(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(28, "No space left on device")
        write_shard(*args, **options)

    monkeypatch.setattr("features.cache.writer.write_shard", full_after_three)
    with pytest.raises(MachineError, match=r"No space left.*finished is kept"):
        finish(interrupted)
    monkeypatch.undo()
    assert finish(interrupted).linked == 3
    assert contents_of(interrupted / "out") == contents_of(interrupted / "reference")


@pytest.mark.slow
def test_real_network_killed_and_resumed(
    make_manifest: ManifestMaker, tmp_path: Path, server: Server
) -> None:
    variant = next(iter(whisper.VARIANTS.values()))
    whole = {"kind": "whisper", **variant(tmp_path / "checkpoint")}
    given = [whole, {**whole, "layer": 1}, {**whole, "layer": 1, "pooling": "mean"}]
    manifest = make_manifest([0.5 + 0.1 * (i % 5) for i in range(12)])
    manifest.write(tmp_path / "utterances")
    for count in (1, 3, 5):
        # Entries of one network in one pass, each of them once the one that is asked for.
        server.start(tmp_path, entry=given[0], siblings=given[1:])
        _until_sealed(tmp_path, count)
        server.kill(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        given = [*given[1:], given[0]]
    for options in given:
        entry = backbone_entry("x", options)
        extract(manifest, entry, tmp_path / "reference", store=tmp_path / "other store")
        finish(tmp_path, entry)
        assert contents_of(tmp_path / "out") == contents_of(tmp_path / "reference")


@pytest.mark.slow
def test_two_at_once_do_not_corrupt_each_other(interrupted: Path, server: Server) -> None:
    server.start(interrupted)
    finish(interrupted)
    assert server.wait() == 0
    assert contents_of(interrupted / "out") == contents_of(interrupted / "reference")


def _is_indexed(folder: Path) -> None:
    """The index of the store, which was written between kills, finds every row there is."""
    (store,) = (path.parent for path in (folder / "store").glob("*/lock"))
    contents = [c for path in (folder / "out").glob("*.h5") for c in read_shard(path).contents]
    for _ in range(2):  # brought up to date, and as it is then
        assert {row.content for row in WorkStore(store.parent, store.name).rows(contents)} == set(
            contents
        )


def _until_sealed(folder: Path, count: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while sealed(folder) < count:
        assert time.monotonic() < deadline, f"{sealed(folder)} of {count} shards in {seconds} s"
        time.sleep(0.001)


def test_lock_names_its_owner_and_ends_with_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = WorkStore(tmp_path, "fingerprint")
    with ThreadPoolExecutor(1) as pool:
        with store.locked():
            second = pool.submit(lambda: store.locked().__enter__())
            deadline = time.monotonic() + 60
            output = ""
            while "waiting" not in output and time.monotonic() < deadline:
                time.sleep(0.01)
                output += capfd.readouterr().err
            assert f"extracted by process {os.getpid()} on " in output
            assert not second.done()
        second.result(timeout=60)
