"""Servers of S3 and SSH on loopback; tests are skipped where their packages are missing."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.machines.team import names

HUSH = "hunter2-and-more"  # the secret of both servers
# Moto lets only the owner overwrite, and trusts any signature to be the owner's.
CREDENTIAL = "Credential=x/20260101/us-east-1/s3/aws4_request"
OWNER = {
    "Authorization": f"AWS4-HMAC-SHA256 {CREDENTIAL}, SignedHeaders=host, Signature=x",
    "Content-Type": "application/octet-stream",
}
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
        url: URL of the remote.
        words: Options of `share setup`.
        secrets: Answers to its prompts.
        client: Module and class that upload.
        names: Returns the names of the objects in the remote.
        put: Overwrites an object.
    """

    url: str
    words: tuple[str, ...]
    secrets: tuple[str, ...]
    client: tuple[str, str]
    names: Callable[[], set[str]]
    put: Callable[[str, bytes], object]


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


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[Server]:
    """Moto's, with an empty bucket."""
    needed("moto", "flask", "dvc_s3")
    port = free_port()
    bucket = f"http://127.0.0.1:{port}/team"

    def asked(path: str, method: str = "GET", content: bytes | None = None) -> str:
        request = urllib.request.Request(f"{bucket}{path}", content, OWNER, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())

    def there() -> set[str]:
        keys = re.findall("<Key>dvc/files/md5/(../[^<]+)</Key>", asked("?list-type=2"))
        return {key.replace("/", "") for key in keys}

    def put(name: str, content: bytes) -> str:
        return asked(f"/dvc/files/md5/{name[:2]}/{name[2:]}", "PUT", content)

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, port, folder / "moto.log"):
        asked("", "PUT")
        where = ("--endpoint-url", bucket.removesuffix("/team"), "--option", "region=us-east-1")
        keys = ("--secret", "access_key_id", "--secret", "secret_access_key")
        client = ("s3fs", "S3FileSystem")
        yield Server("s3://team/dvc", (*where, *keys), ("AKIA-OF-ALL", HUSH), client, there, put)


@contextlib.contextmanager
def ssh_server(root: Path) -> Iterator[Server]:
    """An sshd with keys of its own; `home` has a known_hosts that expects another host key."""
    # sshd is often outside of PATH.
    found = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed")
    needed("dvc_ssh")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd as root insists on stepping down
    folder, store, port = root / "sshd", root / "ssh_store", free_port()
    folder.mkdir()
    store.mkdir()
    for name, phrase in {"host_key": "", "other_host_key": "", "key": HUSH}.items():
        kind = ["-q", "-t", "ed25519", "-N", phrase]
        subprocess.run(["ssh-keygen", *kind, "-f", str(folder / name)], check=True)
    (folder / "config").write_text(SSHD.format(port=port, folder=folder))
    known = root / "home" / ".ssh" / "known_hosts"
    known.parent.mkdir(parents=True)
    key = (folder / "other_host_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{port} {key}")

    def put(name: str, content: bytes) -> None:
        path = store / "files" / "md5" / name[:2] / name[2:]
        path.chmod(0o644)
        path.write_bytes(content)

    command = [found, "-D", "-e", "-f", str(folder / "config")]
    with serving(command, port, root / "sshd.log"):
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{store}"
        words = ("--option", f"keyfile={folder / 'key'}", "--secret", "passphrase")
        client = ("sshfs", "SSHFileSystem")
        yield Server(url, words, (HUSH,), client, lambda: names(store), put)
