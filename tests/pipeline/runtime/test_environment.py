"""Facts about the machine and the commit in run.json."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.runtime.environment import environment


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_current_folder_and_edits_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "x")
    (tmp_path / "untracked").write_text("1")
    found = environment()
    assert (found["commit"], found["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "a").write_text("2")
    assert environment()["dirty"] is True


def test_outside_of_a_repository_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = environment()
    assert (found["commit"], found["dirty"]) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["commit"] is None


def test_it_is_json_and_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["/x/bin/python3", "-m", "stages.train", "a b"])
    found = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["command"] == "python3 -m stages.train 'a b'"
    assert found["device"] == "cpu"
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert {"torch", "numpy"} <= found["packages"].keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])
