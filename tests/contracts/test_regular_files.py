"""All readers of files refuse pipes, devices and folders with a message that says so.

Opening a pipe waits for a writer, even if Ctrl-C is pressed, and a device may never end.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from features.audio.read import read_audio
from features.cache.shard import read_shard
from features.corpora._tables.parquet import Shard
from features.corpus.inspection import inspect_files
from features.corpus.manifest import Manifest
from features.doctor.shards import check_shard, unopenable
from features.errors import HeronryError
from features.exchange.arrays import READERS, ArrayReader
from features.files.reading import check_regular, file_sha256, open_regular, open_text, read_regular
from features.files.reasons import read_reasons
from features.files.records import read_json
from features.files.yaml_text import read_yaml_file
from features.weights.ctranslate2 import read_ctranslate2
from features.weights.tensors import read_tensors
from pipeline.evaluation.predictions import read_predictions
from pipeline.runs.tables import read_csv
from tests.support.corpora.small_corpus import SmallCorpus

SECONDS = 60  # a first use of a library imports it, on a busy machine


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Fail a test that waits for a pipe."""

    def fail(signal: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise TimeoutError(f"nothing came back for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_link_to_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "it is a pipe, not a regular file"),
    "link to a pipe": (make_link_to_pipe, "it is a pipe, not a regular file"),
    "endless device": (
        lambda path: path.symlink_to("/dev/zero"),
        "it is a device, not a regular file",
    ),
    "socket": (make_socket, "No such device or address"),
    "folder": (Path.mkdir, "Is a directory"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "read", [open_regular, check_regular, read_regular, open_text, file_sha256]
)
def test_helpers_open_regular_files_only(
    tmp_path: Path, kind: str, read: Callable[[Path], object]
) -> None:
    make, reason = KINDS[kind]
    make(tmp_path / "x")
    with pytest.raises(OSError, match="x") as caught:
        read(tmp_path / "x")
    assert caught.value.strerror == reason


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\u00e4\r\n".encode())
    (tmp_path / "link").symlink_to("a.txt")
    check_regular(tmp_path / "link")
    assert read_regular(tmp_path / "link") == "\u00e4\r\n".encode()
    with open_text(tmp_path / "link") as file:
        assert file.read() == "\u00e4\r\n"


def read_manifest_at(path: Path) -> None:
    """Read a manifest whose rows are that file."""
    Manifest("c", ()).write(path.parent)
    path.rename(path.with_name("manifest.jsonl"))
    Manifest.read(path.parent)


READ: dict[str, tuple[str, Callable[[Path], object]]] = {
    "audio": ("a.wav", read_audio),
    "a span": ("a.wav", lambda path: read_audio(path, start=0.1, stop=0.2, sha256="0" * 64)),
    "shard": ("shard-00000.h5", read_shard),
    "shard, checked": ("shard-00000.h5", lambda path: raise_fault(path)),
    "manifest": ("rows", read_manifest_at),
    "JSON": ("a.json", read_json),
    "rejects": ("rejected.csv", read_reasons),
    "YAML": ("params.yaml", lambda path: named(read_yaml_file, path)),
    "Parquet": ("a.parquet", lambda path: list(Shard(path, path.name, None).rows(["id"]))),
    "Arrow": ("a.arrow", lambda path: list(Shard(path, path.name, None).rows(["id"]))),
    "safetensors": ("a.safetensors", read_tensors),
    "torch": ("a.pt", read_tensors),
    "CTranslate2": ("model.bin", lambda path: named(read_ctranslate2, path)),
    "table of a run": ("a.csv", lambda path: read_csv(path, ("id",))),
    "predictions": ("a.csv", read_predictions),
    **{
        f"foreign {suffix}": (f"a{suffix}", lambda path: ArrayReader().names(path))
        for suffix in READERS
    },
}


def raise_fault(path: Path) -> None:
    faults = check_shard(path)
    assert isinstance(faults, list)
    raise HeronryError("; ".join(map(str, faults)))


def named(read: Callable[[Path], object], path: Path) -> None:
    """Call a reader that leaves the message to its caller."""
    try:
        read(path)
    except OSError as error:
        raise HeronryError(str(error)) from error


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("kind", ["pipe", "endless device"])
def test_readers_refuse_pipes_and_devices(tmp_path: Path, what: str, kind: str) -> None:
    name, read = READ[what]
    KINDS[kind][0](tmp_path / name)
    with pytest.raises(HeronryError, match="not a regular file"):
        read(tmp_path / name)


def test_prepare_rejects_pipes_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SmallCorpus(tmp_path, monkeypatch)
    mine.four()
    os.mkfifo(mine.root / "pipe.wav")
    (mine.root / "zero.wav").symlink_to("/dev/zero")
    for name in ("pipe.wav", "zero.wav"):
        found = inspect_files(mine.root, [name])[name]
        assert "not a regular file" in str(found)
    mine.table(*mine.rows(), "pipe.wav,,,,sad,s9,d9,train,u9")
    done = mine.prepare(allow_rejected=1)
    assert done.rejected == {
        "u9": "pipe.wav: the file cannot be read (it is a pipe, not a regular file)"
    }


@pytest.mark.slow
def test_probing_shards_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shard-00000.h5")
    assert unopenable([tmp_path / "shard-00000.h5"]) == set()
