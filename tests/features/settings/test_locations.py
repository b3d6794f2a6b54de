"""Folders of this machine come from the environment, then the local file; errors name both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from features.errors import ParamsError
from features.settings import locations
from tests.support.paths import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as the current folder, in an environment without heronry's variables."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    for name in ("STORE", "CHECKPOINTS", "DEVICE", "RAVDESS_ROOT", "MY_CORPUS_ROOT"):
        monkeypatch.delenv(f"HERONRY_{name}", raising=False)
    return root


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").touch()
    return folder


def write_local(project: Path, text: str) -> None:
    (project / "heronry.local.yaml").write_text(text, encoding="utf-8")


def test_root_from_the_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = filled(project.parent / "corpus")
    monkeypatch.setenv("HERONRY_MY_CORPUS_ROOT", "../corpus")
    assert locations.corpus_root("my-corpus") == root


def test_root_from_the_local_file_unless_the_environment_says(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = filled(project / "here"), filled(project / "there")
    write_local(project, "roots: {ravdess: here}\n")
    assert locations.corpus_root("ravdess") == here
    monkeypatch.setenv("HERONRY_RAVDESS_ROOT", str(there))
    assert locations.corpus_root("ravdess") == there


def test_home_is_expanded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    root = filled(project / "corpus")
    monkeypatch.setenv("HERONRY_RAVDESS_ROOT", "~/corpus")
    assert locations.corpus_root("ravdess") == root


@pytest.mark.parametrize("folder", [".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmpabc/sub"])
def test_temporary_runs_of_dvc_read_the_places_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    root = filled(project.parent / "corpus")
    write_local(project, "roots: {ravdess: ../corpus}\n")
    monkeypatch.setenv("HERONRY_STORE", "store")
    (project / folder).mkdir(parents=True)
    monkeypatch.chdir(project / folder)
    assert locations.project_root() == project
    assert locations.corpus_root("ravdess") == root
    assert locations.store_root() == project / "store"


def test_no_root(project: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        locations.corpus_root("ravdess")
    message = str(caught.value)
    assert "HERONRY_RAVDESS_ROOT is not set" in message
    assert str(project / "heronry.local.yaml") in message
    assert "set HERONRY_RAVDESS_ROOT=/path/to/ravdess" in message


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (str, "does not exist"),
        (Path.mkdir, "is empty"),
        (Path.touch, "is not a folder"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_a_root_that_is_no_corpus(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], object],
    fault: str,
    source: str,
) -> None:
    make(project / "corpus")
    if source == "environment":
        monkeypatch.setenv("HERONRY_RAVDESS_ROOT", "corpus")
    else:
        write_local(project, "roots: {ravdess: corpus}\n")
    named = {"environment": "HERONRY_RAVDESS_ROOT", "file": "roots.ravdess"}[source]
    with pytest.raises(ParamsError, match=rf"corpus \(from {named}.*\), {fault}; expected"):
        locations.corpus_root("ravdess")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root: {a: b}\n", r"unknown key 'root'; expected \['checkpoints', 'roots'\]"),
        ("- a\n", r"holds \['a'\]; expected the keys"),
        ("roots: [a]\n", "expected a path for each corpus"),
        ("roots: {ravdess: 5}\n", "expected a path for each corpus"),
        ("roots: {a: [\n", "heronry.local.yaml is no YAML: line 2: "),
        ("roots: {a: !!python/name:os.system x}", "line 1: the tag !!python/name"),
        ("roots: {1: x}", "line 1: the key 1; expected text"),
        ("roots: " + "[1, " * 5000, "line 1: more than 40 levels"),
    ],
)
def test_a_wrong_local_file(project: Path, text: str, message: str) -> None:
    write_local(project, text)
    with pytest.raises(ParamsError, match=message):
        locations.corpus_root("ravdess")


def test_an_empty_local_file_is_none(project: Path) -> None:
    write_local(project, "# nothing yet\n")
    assert locations.checkpoint_folder() is None


def test_checkpoints(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locations.checkpoint_folder() is None
    write_local(project, "checkpoints: weights\n")
    with pytest.raises(ParamsError, match="weights does not exist"):
        locations.checkpoint_folder()
    (project / "weights").mkdir()
    assert locations.checkpoint_folder() == project / "weights"
    (project / "other").mkdir()
    monkeypatch.setenv("HERONRY_CHECKPOINTS", "other")
    assert locations.checkpoint_folder() == project / "other"
    monkeypatch.delenv("HERONRY_CHECKPOINTS")
    write_local(project, "checkpoints: [a]\n")
    with pytest.raises(ParamsError, match=r"\['a'\]; expected a path"):
        locations.checkpoint_folder()


@pytest.mark.usefixtures("project")
def test_user_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = tmp_path / "cache" / "heronry"
    assert locations.store_root() == base / "store"
    assert locations.cache_root() == base
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "s"))
    assert locations.store_root() == tmp_path / "s"
    roots = [tmp_path / "one", tmp_path / "two"]
    first, second = (locations.hashes_file("mine", root) for root in roots)
    assert first.parent == tmp_path / "s" / "hashes"
    assert first != second
    assert first == locations.hashes_file("mine", roots[0])
    assert first != locations.hashes_file("other", roots[0])
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert locations.cache_root() == tmp_path / "home/.cache/heronry"


@pytest.mark.usefixtures("project")
def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert locations.device() == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("HERONRY_DEVICE", "cpu")
    assert locations.device() == "cpu"
    for wrong in ("gpu", "cuda:99"):
        monkeypatch.setenv("HERONRY_DEVICE", wrong)
        with pytest.raises(ParamsError, match=f"HERONRY_DEVICE is '{wrong}'.*expected cpu"):
            locations.device()


def test_devices_are_counted_and_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on each of them would leave a context there in the process that asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", pytest.fail)
    assert locations.devices("0,1") == ("cuda:0", "cuda:1")
    assert locations.devices("cuda") == ("cuda",)
    with pytest.raises(ParamsError, match=r"is 'cuda:2'.*it finds 2 CUDA devices.*expected"):
        locations.devices("0,2")


def test_a_folder_within_the_project_is_refused_with_the_projects_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations.check_folder()  # in no project at all: the reader of params.yaml says so
    for name in ("params.yaml", "dvc.yaml"):
        (project / name).touch()
    locations.check_folder()
    (project / "my notes" / "deep").mkdir(parents=True)
    monkeypatch.chdir(project / "my notes" / "deep")
    with pytest.raises(ParamsError, match=r"my notes/deep, within the project .*: cd "):
        locations.check_folder()


@pytest.mark.parametrize("module", ["pipeline", "stages.selection"])
def test_commands_say_which_folder_is_meant(module: str, tmp_path: Path) -> None:
    root = ROOT
    words = ["check"] if module == "pipeline" else []
    environment = os.environ | {"PYTHONPATH": str(root)}
    for folder, message in (
        (root / "docs", f"within the project {root}; expected the project's own: cd {root}"),
        (tmp_path, "cannot read params.yaml (No such file or directory); expected it in the curr"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.splitlines() if line)
        assert message in line
