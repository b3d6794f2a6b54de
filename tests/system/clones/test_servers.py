"""Sharing through servers on this machine: S3 by moto, SSH by sshd.

They run where `moto[server]` and `dvc-s3`, or `sshd` and `dvc-ssh`, are installed.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines.servers import HUSH, Server, s3_server, ssh_server
from tests.support.machines.team import EXTRACT, Member, Team, md5

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
TARGETS = ("stages/prepare/dvc.yaml:prepare@tones", EXTRACT.format("tone"))
DATA = ("data/tones/utterances", "data/tones/labels", "data/tones/ratings")
FOLDERS = (*DATA, "cache/tones/tone")
SHARD = "cache/tones/tone/shard-00001.h5"
# As `heronry share` does it, without what the other commands import.
SHARE = "import sys; from pipeline.commands.share import app; app(sys.argv[1:])"
# `dvc push`, killed as upload number 4 begins.
KILLED = """
import os, sys
from {module} import {name} as FileSystem
whole, begun = FileSystem._put_file, []
async def put_file(self, *what, **how):
    begun.append(what)
    if len(begun) == 4:
        os.kill(os.getpid(), 9)
    return await whole(self, *what, **how)
FileSystem._put_file = put_file
from dvc.cli import main
sys.exit(main(["push", "-j", "1", *sys.argv[1:]]))
"""


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Server]:
    with s3_server(tmp_path) as server:
        yield server


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Server]:
    with ssh_server(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team.found(tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="module")
def ann(team: Team) -> Member:
    """Extracted, and published the lock files."""
    ann = team.member("ann", corpus=True)
    ann.run("dvc", "repro", *TARGETS)
    ann.publish("Extract")
    return ann


@pytest.mark.parametrize("kind", ["s3", "ssh"])
def test_features_travel_by_a_server(
    tmp_path: Path, team: Team, ann: Member, kind: str, request: pytest.FixtureRequest
) -> None:
    """One sets the remote up and pushes; another does, and pulls: past a kill and a forgery."""
    server: Server = request.getfixturevalue(kind)
    said = setup(ann, server, tmp_path / "home")
    ann.publish("Name the remote")
    broken_off(ann, server)
    assert len({name for name in server.names() if not name.endswith(".tmp")}) == 3
    said += ann.run("dvc", "push", "--run-cache", *TARGETS)
    assert {name for name in server.names() if not name.endswith(".tmp")} == ann.outputs(*FOLDERS)

    bob = team.member(f"bob by {kind}")
    said += setup(bob, server, tmp_path / "home")
    shard = ann.root / SHARD
    server.put(md5(shard), shard.read_bytes()[::-1])
    forged = bob.run("dvc", "pull", *TARGETS, fails=True)
    assert "Checkout failed" in forged
    assert not (bob.root / "cache/tones/tone").exists()
    server.put(md5(shard), shard.read_bytes())
    said += bob.run("dvc", "pull", *TARGETS)
    for folder in FOLDERS:
        for path in (ann.root / folder).iterdir():
            assert md5(bob.root / folder / path.name) == md5(path)
    for member in (ann, bob):
        assert holding(member, HUSH) == [".dvc/config.local"]
    assert HUSH not in said + forged + ann.git_output("log", "-p", "--all")


def test_dvc_does_not_ask_which_host_it_talks_to(ssh: Server, tmp_path: Path) -> None:
    """docs/remotes.md says so: the test above passes though known_hosts expects another key."""
    address = re.fullmatch("ssh://(.+):([0-9]+)/.*", ssh.url)
    assert address is not None
    known = f"UserKnownHostsFile={tmp_path / 'home' / '.ssh' / 'known_hosts'}"
    words = ["-F", "none", "-o", known, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    done = subprocess.run(
        ["ssh", *words, "-p", address[2], address[1], "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


def setup(member: Member, server: Server, home: Path) -> str:
    """`share setup` as somebody who has no configuration or keys but those given."""
    home.mkdir(exist_ok=True)
    inherited = {k: v for k, v in member.environment.items() if not k.startswith("AWS_")}
    member.environment = inherited | {"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", SHARE, "setup", server.url, *server.words, "--force"],
        cwd=member.root,
        env=member.environment,
        input="".join(f"{secret}\n" for secret in server.secrets),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pushed and pulled 1024 bytes in" in done.stdout, done.stdout + done.stderr
    return done.stdout + done.stderr


def broken_off(member: Member, server: Server) -> None:
    module, name = server.client
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(module=module, name=name), *TARGETS],
        cwd=member.root,
        env=member.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def holding(member: Member, secret: str) -> list[str]:
    """Files of a clone, DVC's logs and Git's folder among them, in which a secret stands."""
    return [
        path.relative_to(member.root).as_posix()
        for path in sorted(member.root.rglob("*"))
        if path.is_file() and secret.encode() in path.read_bytes()
    ]
