"""Requests of other hosts, of other sites, without the token, too many, too large or too slow."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.serve.gate import HEADERS, Access, Gate
from pipeline.serve.limits import Limits
from pipeline.serve.server import address, listening, running
from tests.pipeline.serve.conftest import Server, served

TOKEN = "a-token-of-a-test"


@pytest.fixture(scope="module")
def guarded(server: Server) -> Iterator[Server]:
    access = Access(TOKEN, frozenset({"demo.example.org"}))
    with served(server.model, access=access, limits=Limits(0.5, 10.0, 1)) as found:
        yield found


def asked(server: Server, path: str = "api/model", **headers: str) -> int:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.get(path, headers=names).status_code


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("evil.example.org", 421),
        ("localhost.evil.example.org", 421),
        ("evil@localhost", 421),
        ("localhost:80:80", 421),
        ("[evil]", 421),
    ],
)
def test_a_host_name_that_a_stranger_can_point_here_is_refused(
    server: Server, host: str, status: int
) -> None:
    assert asked(server, host=host) == status
    assert asked(server, "/", host=host) == status


def test_pages_of_other_sites_are_refused(server: Server) -> None:
    here = server.url.rstrip("/")
    assert asked(server, origin=here, sec_fetch_site="same-origin") == 200
    assert asked(server, origin="https://evil.example.org") == 403
    assert asked(server, origin="null") == 403
    assert asked(server, origin=f"{here}0") == 403
    assert asked(server, sec_fetch_site="cross-site") == 403
    assert asked(server, sec_fetch_site="same-site") == 403
    assert asked(server, "/", sec_fetch_site="cross-site") == 200  # a link to the page


def test_a_token_is_asked_for(guarded: Server) -> None:
    assert asked(guarded, authorization=f"Bearer {TOKEN}") == 200
    assert asked(guarded, authorization=f"Bearer {TOKEN}", host="Demo.example.org") == 200
    assert asked(guarded) == 401
    assert asked(guarded, authorization=f"Bearer {TOKEN}x") == 401
    assert asked(guarded, authorization=TOKEN) == 401
    assert asked(guarded, "/") == asked(guarded, "openapi.json") == 200
    assert guarded.client.post("api/predict", data={"text": "a"}).status_code == 401


@pytest.mark.parametrize("path", ["/", "page.js", "style.css", "api/model", "api/none", "none"])
def test_every_answer_is_protected(server: Server, path: str) -> None:
    response = server.client.get(path, headers={"origin": "http://evil.example.org"})
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    assert "access-control-allow-origin" not in response.headers
    assert "server" not in response.headers


def test_another_method_says_which(server: Server) -> None:
    response = server.client.get("api/predict")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert list(response.json()) == ["problem", "expected", "remedy"]


def test_a_body_without_a_length_is_counted(server: Server) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(9):
            yield bytes(65536)

    response = server.client.post("api/predict", content=body(), headers=kind)
    assert (response.status_code, response.json()["problem"]) == (413, "a clip of too many bytes")


def test_one_that_uploads_for_too_long_makes_room(
    guarded: Server, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the only place: meanwhile others are told to wait, and afterwards are answered."""
    monkeypatch.setattr("pipeline.serve.gate.UPLOAD_SECONDS", 3.0)
    monkeypatch.setattr("pipeline.serve.server.IDLE_SECONDS", 0.5)  # of others
    left = threading.Event()
    token = {"authorization": f"Bearer {TOKEN}"}
    found: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        yield b"--x\r\n"
        left.wait(60)
        yield b"--x--\r\n"

    def upload() -> None:
        kind = {"content-type": "multipart/form-data; boundary=x", **token}
        with httpx.Client(base_url=guarded.url, trust_env=False, timeout=60) as client:
            found.append(client.post("api/predict", content=body(), headers=kind))

    slow = threading.Thread(target=upload)
    slow.start()
    while not guarded.gate.inside:
        assert slow.is_alive()
        time.sleep(0.01)
    files = {"audio": clip.read_bytes()}
    statuses: list[int] = []
    while not statuses or statuses[-1] == 503:
        # A kept connection might be closed under the client.
        headers = {**token, "connection": "close"}
        response = guarded.client.post("api/predict", files=files, headers=headers)
        statuses.append(response.status_code)
        if response.status_code == 503:
            assert response.headers["retry-after"] == "5"
            left.wait(0.1)
    left.set()
    slow.join()
    assert 503 in statuses
    assert statuses[-1] == 200
    assert found[0].status_code == 408


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_connection_that_asks_nothing_is_closed(
    server: Server, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its first request, and as a later one."""
    monkeypatch.setattr("pipeline.serve.server.IDLE_SECONDS", 0.2)
    url = httpx.URL(server.url)
    for before in (b"", b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection((url.host, url.port), timeout=30) as connection:
            connection.sendall(before)
            if before:
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
            connection.sendall(begun)
            assert connection.recv(1) == b""


def test_a_request_that_is_not_answered_when_the_server_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.serve.server.LEAVE_SECONDS", 0)
    came = threading.Event()
    found: list[httpx.Response] = []

    async def app(*_: object) -> None:
        came.set()
        await asyncio.sleep(600)

    def ask(url: str) -> None:
        found.append(httpx.get(url, trust_env=False, timeout=60))

    limits = Limits()
    with listening("127.0.0.1", 0) as taken:
        client = threading.Thread(target=ask, args=(address(taken),))
        with running(Gate(app, Access(), limits), taken, limits):
            client.start()
            assert came.wait(30)
    client.join()
    assert found[0].status_code == 503
    assert found[0].json()["problem"] == "a server that is about to end"
    assert "Traceback" not in caplog.text
