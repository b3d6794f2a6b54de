"""A server on loopback that speaks as much of OpenAI's chat protocol as is asked of it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
"""Status, and what is sent as JSON."""


@dataclass
class ChatServer:
    """What a server was asked, and how it replies.

    Attributes:
        reply: Reply to a request, given its number from 0 and its content.
        headers: Headers of each reply beside its type.
        address: Base address.
        asked: Content of all requests.
        keys: Header `Authorization` of all requests.
        at_once: Largest number of requests that were answered at the same time.
    """

    reply: Callable[[int, dict[str, Any]], Reply]
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)


def said(text: str | None) -> Reply:
    """A reply with an answer."""
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def recording(request: Mapping[str, Any]) -> bytes:
    """The WAV file in the last message of a request."""
    parts = request["messages"][-1]["content"]
    (audio,) = (part["input_audio"] for part in parts if part["type"] == "input_audio")
    assert audio["format"] == "wav"
    return base64.b64decode(audio["data"])


def by_recording(answers: list[str]) -> Callable[[int, dict[str, Any]], Reply]:
    """Replies that depend on the recording alone, as those of a model at temperature 0 do."""

    def reply(_: int, request: dict[str, Any]) -> Reply:
        place = int(hashlib.sha256(recording(request)).hexdigest(), 16) % len(answers)
        return said(answers[place])

    return reply


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    """Serve on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server._lock:
                number = len(server.asked)
                server.asked.append(content)
                server.keys.append(self.headers.get("Authorization"))
                server._now += 1
                server.at_once = max(server.at_once, server._now)
            try:
                assert self.path == "/v1/chat/completions"
                status, found = server.reply(number, content)
            finally:
                with server._lock:
                    server._now -= 1
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            with suppress(OSError):  # of a client that waits no longer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **server.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.address = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
