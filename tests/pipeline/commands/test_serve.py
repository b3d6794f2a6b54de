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
from pipeline.commands.serve import TOKEN, chosen_token, shown
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
    assert chosen_token(needed=False) is None
    made = {chosen_token(needed=True) for _ in range(2)}
    assert len(made) == 2
    assert all(each and len(each) == 32 for each in made)
    monkeypatch.setenv(TOKEN, "a-token-of-a-test")
    assert {chosen_token(needed=each) for each in (True, False)} == {"a-token-of-a-test"}
    for wrong in (
        "short",
        "words of a sentence",
        "a-t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken" * 3,
    ):
        monkeypatch.setenv(TOKEN, wrong)
        with pytest.raises(
            ParamsError, match=f"has {len(wrong)} characters; .*none of them a space"
        ):
            chosen_token(needed=False)


@pytest.mark.parametrize(
    ("words", "needed"),
    [((), False), (("--name", "demo.example.org"), True), (("--host", "0.0.0.0"), True)],
)
def test_whoever_can_come_from_elsewhere_needs_a_token(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], needed: bool
) -> None:
    def stop(*, needed: bool) -> None:
        raise ParamsError(f"needed: {needed}")

    monkeypatch.setattr("pipeline.commands.serve.chosen_token", stop)
    assert refused("no-run", "--port", 0, *words) == f"ParamsError: needed: {needed}"


def test_the_address_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of the environment is not."""
    monkeypatch.delenv(TOKEN, raising=False)
    with listening("127.0.0.1", 0) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        assert shown(taken, None) == url
        assert shown(taken, "made") == f"{url}#token=made"
        for given, how in (("0123456789abcdef", ""), ("+&%#0123456789ab", ", percent-encoded")):
            monkeypatch.setenv(TOKEN, given)
            assert shown(taken, chosen_token(needed=True)) == (
                f"{url}#token= followed by {TOKEN}{how}"
            )
    with listening("0.0.0.0", 0) as taken:
        assert shown(taken, "made").endswith(
            "#token=made (with any address of this machine in the place of 0.0.0.0)"
        )


def test_what_is_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        said = refused("no-run", "--port", port)
        assert said.startswith(f"MachineError: cannot listen on 127.0.0.1, port {port} (Address")
    assert "cannot listen on 192.0.2.1" in refused("no-run", "--host", "192.0.2.1")
    for host in ("a..b", "x" * 64 + ".example.org"):
        said = f"MachineError: cannot listen on {host}, port 0 (no host name)"
        assert refused("no-run", "--port", 0, "--host", host).startswith(said)
    for device in ("nosuch", "0", "cuda:99"):
        said = f"ParamsError: --device is {device!r}, which torch cannot use here"
        assert refused("no-run", "--port", 0, "--device", device).startswith(said)
    for option in ("--max-megabytes", "--max-seconds"):
        assert "expected a finite number above 0" in refused("no-run", option, "inf")
    assert refused("no-run", "--port", 0).startswith("RunError: there is no folder no-run")
    monkeypatch.setattr("pipeline.commands.serve.NEEDED", ("fastapi", "no_such_package"))
    assert "serve needs no_such_package, not installed here" in refused("no-run")


@pytest.mark.parametrize(
    "name",
    [
        "https://demo.example.org",
        "demo.example.org:443",
        "demo.example.org.",
        "b\xfccher.example",
        "",
    ],
)
def test_a_name_that_no_request_has_is_refused(name: str) -> None:
    said = f"ParamsError: --name {name!r}: expected a host name alone"
    assert refused("no-run", "--port", 0, "--name", name).startswith(said)


def test_what_is_known_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are checked first; the model is loaded with code of others only if asked for."""

    def stop(*_: object, trust_remote_code: bool, **__: object) -> None:
        raise ParamsError(f"trusts: {trust_remote_code}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.commands.serve.load_run", stop)
    asked = ("no-run", "--port", 0)
    assert refused(*asked) == "ParamsError: trusts: False"
    assert refused(*asked, "--trust-remote-code") == "ParamsError: trusts: True"
    Path("params.yaml").write_text("transcribe: {nosuch: 1}\n")
    assert "transcribe.nosuch" in refused(*asked, "--transcribe")


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
    assert said.startswith("interrupted: the batch under way is finished; ")
    assert said.count("\n") == 1
    assert [*tmp_path.glob("heronry-*")] == []
