"""Errors of the operating system become messages with path, cause and remedy."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from features.backbone.entry import BackboneEntry
from features.errors import MachineError, ManifestError, ParamsError
from features.extraction.extract import Options, extract
from features.extraction.store import WorkStore
from features.files.csv_text import write_csv
from features.files.records import write_json, write_rows
from features.files.writing import empty_folder, make_folder, replacing
from features.process.command import run_command
from features.process.machine_errors import REMEDIES, machine_error, with_machine_errors
from features.settings.locations import cache_root
from pipeline.commands import check
from pipeline.model.checkpoint import save_model
from pipeline.storage.work_store import _held
from tests.conftest import ManifestMaker

TONE = BackboneEntry("tone", "tone")


def message_of(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails."""
    with pytest.raises(SystemExit) as caught:
        run_command(command)
    output = capsys.readouterr()
    assert (caught.value.code, output.out) == (1, "")
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    return output.err


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A file on a device that is full."""
    path = tmp_path / "folder" / "full"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    return path


def test_all_writers_name_the_path_on_a_full_disk(
    full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.table({"x": np.zeros(100_000)})
    writers: dict[str, Callable[[], object]] = {
        "text": lambda: full.write_text("x" * 100_000),
        "json": lambda: write_json(full, {"x": 1}),
        "csv": lambda: write_csv(full, ("a", "b"), [(1, 2)]),
        "parquet": lambda: _write_parquet(full, table),
    }
    for name, write in writers.items():
        line = message_of(write, capsys)
        assert "No space left on device" in line, name
        assert str(full.parent) in line, name
        assert "`df -h`" in line, name
        assert "HERONRY_STORE" in line, name


def _write_parquet(path: Path, table: pa.Table) -> None:
    with path.open("wb") as file:
        parquet.write_table(table, file)


def test_a_copy_names_its_target_on_a_full_disk(full: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(100_000))
    with pytest.raises(MachineError, match=f"cannot read or write {full} "):
        with_machine_errors(shutil.copyfile, tmp_path / "source", full)


def test_an_atomic_write_names_the_final_path(tmp_path: Path) -> None:
    def fails() -> None:
        with replacing(tmp_path / "card.json") as temporary, temporary.open("w") as file:
            file.write("x")
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with pytest.raises(MachineError, match=f"{tmp_path}/card.json .*quota"):
        with_machine_errors(fails)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", sorted({*REMEDIES, errno.ECONNREFUSED}))
def test_every_refusal_has_path_cause_and_remedy(number: int) -> None:
    line = str(machine_error(OSError(number, os.strerror(number), "/data/x")))
    assert line.startswith(f"cannot read or write /data/x ({os.strerror(number)}): ")
    assert len(line) > 80


def test_a_limit_on_files_stops_a_training_s_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library has errors of its own; the training has gone on up to here."""
    model: Any = torch.nn.Linear(400, 400)

    def save() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            save_model(tmp_path / "run", model, kind="concat", args={}, specs={}, classes=[])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    line = message_of(save, capsys)
    path = tmp_path / "run" / "model.safetensors"
    assert f"cannot read or write {path} (File too large): raise the limit" in line


def test_errors_wrapped_by_libraries() -> None:
    foreign = type("Foreign", (Exception,), {"__module__": "safetensors_rust"})
    for error in (
        foreign("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("Unable to write (file write failed: time = now, errno = 28, error message = 'x')"),
        RuntimeError("[Errno 28] No space left on device"),
    ):
        assert "(No space left on device)" in str(machine_error(error))
    assert "out of memory" in str(machine_error(MemoryError("12 GiB")))
    for other in (OSError("no model of that name"), RuntimeError("shapes differ"), KeyError("x")):
        assert machine_error(other) is None


def test_bugs_keep_their_traceback_and_errors_of_users_their_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)

    def wrong() -> None:
        raise ManifestError("line 3: no id")

    assert message_of(wrong, capsys) == "error: line 3: no id\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refused)
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    store = WorkStore(tmp_path / "store", "backbone")
    lines = [message_of(lambda: store.locked().__enter__(), capsys)]
    lines += [message_of(lambda: _held(store.folder).__enter__(), capsys)]
    (problem,) = check.place_problems()
    for line in (*lines, problem):
        assert str(tmp_path / "store") in line
        assert os.strerror(number) in line
        assert "set HERONRY_STORE to a folder on a disk of this machine" in line


def test_check_reports_folders_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "far" / "store"))
    assert list(check.place_problems()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]
    assert list(Path.cwd().iterdir()) == []
    (tmp_path / "far").write_text("a file")
    Path("runs").symlink_to(tmp_path / "gone")
    store, runs = check.place_problems()
    assert f"HERONRY_STORE) {tmp_path}/far/store: cannot read or write {tmp_path}/far (" in store
    assert runs.startswith("runs/: cannot read or write ")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "some name")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", read_only)
    store, project = check.place_problems()
    assert f"the project: cannot read or write {Path.cwd()} (Read-only file system)" in project


def test_a_user_without_a_home_folder_gets_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for given in ("", "~/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        with pytest.raises(ParamsError, match="no home folder: set HOME, or HERONRY_STORE"):
            cache_root()


@pytest.fixture
def careful() -> Iterator[None]:
    """The usual umask, under which a group may read alone."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careful")
def test_everything_in_a_shared_store_is_shared(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest([0.2, 0.3])
    for name, shared in (("own", False), ("shared", True)):
        root = tmp_path / name
        root.mkdir()
        root.chmod(0o2775 if shared else 0o755)
        extract(manifest, TONE, tmp_path / "out", store=root / "store")
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (root / "store").rglob("*")}
        modes[root / "store"] = stat.S_IMODE((root / "store").stat().st_mode)
        kinds = {path.suffix or ("lock" if path.is_file() else "/") for path in modes}
        assert kinds == {".h5", ".json", "lock", "/"}
        for path, mode in modes.items():
            if path.is_dir():
                assert mode == (0o2775 if shared else 0o755), path
            elif path.suffix == ".h5":  # sealed, for the group as well
                assert mode == 0o444, path
            else:
                assert mode == (0o664 if shared else 0o644), path


@pytest.mark.usefixtures("careful")
def test_a_folder_passes_on_only_its_own_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o2750)
    make_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o2755
    write_rows(tmp_path / "a" / "rows.jsonl", [])
    assert stat.S_IMODE((tmp_path / "a" / "rows.jsonl").stat().st_mode) == 0o644
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists"):
        make_folder(tmp_path / "file" / "below")


def test_partly_delivered_output_is_removed(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while shards are copied into the output folder."""
    manifest, done = make_manifest([1.0] * 6), list[Path]()

    def full_at_last(self: WorkStore, fingerprint: str, target: Path) -> None:
        if done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        target.write_bytes(self.path(fingerprint).read_bytes())
        done.append(target)

    monkeypatch.setattr(WorkStore, "deliver", full_at_last)
    with suppress(OSError):
        extract(manifest, TONE, tmp_path / "out", store=tmp_path / "store", options=Options())
    assert done
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_removed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with monkeypatch.context() as stuck:
        stuck.setattr("shutil.rmtree", read_only)
        with pytest.raises(MachineError, match=rf"{out} \(Read-only file system\)"):
            with_machine_errors(empty_folder, out)
    empty_folder(out)
    assert list(out.iterdir()) == []
    (tmp_path / "link").symlink_to(out)
    (out / "another's").touch()
    with pytest.raises(MachineError, match=r"link \(it is a symbolic link\)"):
        with_machine_errors(empty_folder, tmp_path / "link")
    assert [path.name for path in out.iterdir()] == ["another's"]
