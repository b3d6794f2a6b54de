"""`share setup` with a real HTTP server on this machine, which asks for a password."""

from __future__ import annotations

import base64
import gc
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.storage.remote import LOCAL, SHARED
from pipeline.storage.url import ShareError
from tests.pipeline.commands.test_share import HUSH, project, section, setup

__all__ = ["project"]  # the fixture is for every test
# dvc-http's way of giving a password is old-fashioned in the eyes of its own dependency.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:(BasicAuth|The 'auth' parameter) is deprecated:DeprecationWarning"
)
LOGIN = ("--option", "auth=basic", "--option", "user=me", "--secret", "password")
WANTED = "Basic " + base64.b64encode(f"me:{HUSH}".encode()).decode()


class Store(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes]

    def do_POST(self) -> None:
        content = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else b""
        content = content or self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._may():
            self.server.kept[self.path] = content  # type: ignore[attr-defined]
            self._answer(200)

    def do_GET(self) -> None:
        if self._may():
            content = self.server.kept.get(self.path)  # type: ignore[attr-defined]
            self._answer(404 if content is None else 200, content or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _may(self) -> bool:
        right = self.headers.get("Authorization") == WANTED
        if not right:
            self._answer(401)
        return right

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        server.kept = {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/dvc"
        server.shutdown()
        thread.join()


def test_a_password_is_asked_for_and_kept_here(url: str) -> None:
    said = setup(url, *LOGIN, given=f"{HUSH}\n")
    assert "pushed and pulled 1024 bytes in" in said
    assert "could not be removed" in said, "DVC removes nothing by HTTP"
    assert section(SHARED) == {"url": url, "verify": "true", "auth": "basic"}
    assert section(LOCAL) == {"user": "me", "password": HUSH}
    assert HUSH not in said + SHARED.read_text()


@pytest.mark.parametrize("how", ["push to", "read from"])
def test_a_wrong_password_is_reported_and_nothing_written(url: str, how: str) -> None:
    before = SHARED.read_bytes()
    words = () if how == "push to" else ("--read-only",)
    with pytest.raises(ShareError, match=f"cannot {how} {url} .*Unauthorized") as caught:
        setup(url, *LOGIN, *words, given="something else\n")
    assert "something else" not in str(caught.value)
    assert SHARED.read_bytes() == before
    assert not Path(LOCAL).exists()


def test_a_read_only_server_is_asked_for_an_object(url: str) -> None:
    assert "nothing was written" in setup(url, *LOGIN, "--read-only", given=f"{HUSH}\n")
    with pytest.raises(ShareError, match="cannot read from"):
        setup("http://127.0.0.1:1/dvc", "--read-only", "--name", "gone")


def test_the_session_is_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By us: fsspec closes one when it is collected, if the machine is not too busy."""
    from fsspec.implementations.http import HTTPFileSystem

    monkeypatch.setattr(HTTPFileSystem, "close_session", lambda *_: None)
    setup(url, *LOGIN, given=f"{HUSH}\n")
    gc.collect()  # an unclosed session warns, which is an error here
