"""Sharing by servers on this machine: S3 by moto's, SSH by sshd, started and stopped here.

They run where `moto[server]` and `dvc-s3`, or `sshd` and `dvc-ssh`, are installed.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.team import EXTRACT, Member, Team, md5

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
PREPARE = "stages/prepare/dvc.yaml:prepare@tones"
TARGETS = (PREPARE, EXTRACT.format("none"), EXTRACT.format("tone"))
FOLDERS = ("data/tones/utterances", "data/tones/labels", "cache/tones/none", "cache/tones/tone")
KEYS = {"AWS_ACCESS_KEY_ID": "probe-id", "AWS_SECRET_ACCESS_KEY": "hunter2-and-more"}
BUCKET = """
import boto3, sys
boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1").create_bucket(Bucket="team")
"""
SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile {folder}/pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Server:
    """A remote on loopback.

    Attributes:
        url: Of the remote.
        words: Further words for `share setup`.
        environment: Credentials of every member.
        secret: What must not get into Git.
    """

    url: str
    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    secret: str = ""


def needed(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the body ends; it must take connections within half a minute."""
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                assert server.poll() is None, log.read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            server.terminate()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Server]:
    needed("moto", "flask", "dvc_s3", "boto3")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    # Neither the user's own configuration nor a region of the machine is to be read.
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "no"), "AWS_EC2_METADATA_DISABLED": "true"}
    environment = {**KEYS, **nothing, "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, port, tmp_path / "moto.log"):
        subprocess.run(
            [sys.executable, "-c", BUCKET, endpoint], env=os.environ | environment, check=True
        )
        words = ("--endpoint-url", endpoint, "--option", "region=us-east-1")
        yield Server("s3://team/dvc", words, environment, KEYS["AWS_SECRET_ACCESS_KEY"])


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Server]:
    # Neither is on everybody's path.
    found = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed")
    needed("dvc_ssh")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd as root insists on stepping down
    folder = tmp_path / "sshd"
    folder.mkdir()
    for name in ("host_key", "key"):
        words = ["-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(["ssh-keygen", *words], check=True)
    port = free_port()
    (folder / "config").write_text(SSHD.format(port=port, folder=folder))
    command = [found, "-D", "-e", "-f", str(folder / "config")]
    with serving(command, port, tmp_path / "sshd.log"):
        store = tmp_path / "ssh_store"
        store.mkdir()
        user = getpass.getuser()
        key = ("--option", f"keyfile={folder / 'key'}")
        home = {"HOME": str(tmp_path)}  # no configuration or known hosts of the user's
        yield Server(f"ssh://{user}@127.0.0.1:{port}{store}", key, home)


@pytest.mark.parametrize("kind", ["s3", "ssh"])
def test_features_travel_by_a_server(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """One sets the remote up and pushes; another, without a corpus, sets up and pulls."""
    server: Server = request.getfixturevalue(kind)
    team = Team.found(tmp_path / "team")
    ann, bob = (team.member(name, corpus=name == "ann") for name in ("ann", "bob"))
    for member in (ann, bob):
        member.environment |= server.environment
    said = setup(ann, server)
    assert "pushed and pulled 1024 bytes in" in said
    ann.run("dvc", "repro", *TARGETS)
    assert "files pushed" in ann.run("dvc", "push", "--run-cache", *TARGETS)
    ann.publish("Extract")
    bob.git("pull", "-q")
    bob.forbid_extraction()
    said += setup(bob, server)
    said += bob.run("dvc", "repro", "--pull", "--allow-missing", *TARGETS)
    said += bob.run("dvc", "pull", *TARGETS)
    assert "> python -m stages" not in said
    for folder in FOLDERS:
        for path in (ann.root / folder).iterdir():
            assert md5(bob.root / folder / path.name) == md5(path)
    if server.secret:
        assert server.secret not in said
        assert server.secret not in ann.told("log", "-p", "--all")


def setup(member: Member, server: Server) -> str:
    return member.run("pipeline", "share", "setup", server.url, *server.words, "--force")
