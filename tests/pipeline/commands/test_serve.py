"""`heronry serve`: its token, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.backbone.entry import backbone_entry
from features.errors import ParamsError
from pipeline.command_line.app import app
from pipeline.commands.serve import TOKEN, chosen_token
from pipeline.serve.server import listening
from tests.conftest import ManifestMaker
from tests.support.paths import ROOT
from tests.support.runs.random_run import RandomRun


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, ["serve", *map(str, words)])
    assert result.exit_code == 1
    return f"{type(result.exception).__name__}: {result.exception}"


def test_a_network_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert chosen_token(loopback=True) is None
    made = {chosen_token(loopback=False) for _ in range(2)}
    assert len(made) == 2
    assert all(each and len(each) == 32 for each in made)
    monkeypatch.setenv(TOKEN, "a-token-of-a-test")
    assert {chosen_token(loopback=each) for each in (True, False)} == {"a-token-of-a-test"}
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(ParamsError, match="has 5 characters; expected at least 16"):
        chosen_token(loopback=True)


def test_what_is_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        said = refused("no-run", "--port", port)
        assert said.startswith(f"MachineError: cannot listen on 127.0.0.1, port {port} (Address")
    assert "cannot listen on 192.0.2.1" in refused("no-run", "--host", "192.0.2.1")
    assert refused("no-run", "--port", 0).startswith("RunError: there is no folder no-run")
    monkeypatch.setattr("pipeline.commands.serve.NEEDED", ("fastapi", "no_such_package"))
    assert "serve needs no_such_package, not installed here" in refused("no-run")


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(
    tmp_path: Path,
    make_manifest: ManifestMaker,
    private_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = {"speech": backbone_entry("voice", {"kind": "tone", "version": 3})}
    run = RandomRun(tmp_path, make_manifest([0.9, 0.5, 1.3, 0.7]), entries).write(private_store)
    command = [sys.executable, "-m", "pipeline", "serve", str(run.path), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:  # type: ignore[call-overload]
        line = server.stdout.readline()
        found = re.fullmatch(r"serving \S+: (http://127\.0\.0\.1:\d+/)\n", line)
        assert found, line + server.stderr.read()
        with urllib.request.urlopen(f"{found[1]}api/model", timeout=30) as answer:
            assert json.load(answer)["slots"] == {"speech": "audio"}
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
        said = server.stderr.read()
    assert said.startswith("interrupted: ")
    assert said.count("\n") == 1
    assert [*tmp_path.glob("heronry-*")] == []
