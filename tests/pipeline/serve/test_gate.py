"""Requests of other hosts, of other sites, without the token, too many, too large or too slow."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.serve.gate import HEADERS, Access, Gate
from pipeline.serve.limits import Limits
from pipeline.serve.server import Connection, address, listening, running
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
    assert asked(guarded, authorization=f"bearer {TOKEN}") == 200
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
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is answered in part is cut, without a second answer behind the first."""
    monkeypatch.setattr("pipeline.serve.server.LEAVE_SECONDS", 0)
    came = threading.Semaphore(0)
    found: list[httpx.Response] = []
    cut: list[httpx.RemoteProtocolError] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        came.release()
        await asyncio.sleep(600)

    def ask(url: str) -> None:
        try:
            found.append(httpx.get(url, trust_env=False, timeout=60))
        except httpx.RemoteProtocolError as error:
            cut.append(error)

    limits = Limits()
    with listening("127.0.0.1", 0) as taken:
        urls = (address(taken), f"{address(taken)}begun")
        clients = [threading.Thread(target=ask, args=(url,)) for url in urls]
        with running(Gate(app, Access(), limits), taken, limits):
            for client in clients:
                client.start()
            assert came.acquire(timeout=30)
            assert came.acquire(timeout=30)
    for client in clients:
        client.join()
    assert [response.status_code for response in found] == [503]
    assert found[0].json()["problem"] == "a server that is about to end"
    assert len(cut) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("idle", [0.1, 600.0])
def test_a_client_that_reads_nothing(monkeypatch: pytest.MonkeyPatch, idle: float) -> None:
    """It loses its connection after a while, or with the server, which does not wait for it."""
    monkeypatch.setattr("pipeline.serve.server.IDLE_SECONDS", idle)
    monkeypatch.setattr("pipeline.serve.server.LEAVE_SECONDS", 0)
    second, lost = threading.Event(), threading.Event()

    class Seen(Connection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/second":
            second.set()
        await Response(bytes(8 << 20))(scope, receive, send)

    monkeypatch.setattr("pipeline.serve.server.Connection", Seen)
    limits = Limits()

    def serve() -> None:
        with (
            listening("127.0.0.1", 0) as taken,
            socket.socket() as client,
            running(Gate(app, Access(), limits), taken, limits),
        ):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(taken.getsockname())
            for path in (b"first", b"second"):
                client.sendall(b"GET /" + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert second.wait(30)
            if idle < 1:
                assert lost.wait(30)

    # A thread, since what is tested is that it ends.
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    thread.join(60)
    assert lost.is_set()
    assert not thread.is_alive()


def test_what_is_no_request_of_http_is_not_passed_on() -> None:
    async def never(*_: object) -> None:
        raise AssertionError

    gate: Any = Gate(never, Access(), Limits())
    with pytest.raises(NotImplementedError, match="'websocket'; expected 'http'"):
        asyncio.run(gate({"type": "websocket"}, never, never))
