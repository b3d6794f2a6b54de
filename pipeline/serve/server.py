"""Runs an app on a port, in a thread of its own, until its context ends."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from features.errors import MachineError
from pipeline.serve.limits import CONNECTIONS, IDLE_SECONDS, Limits

LEAVE_SECONDS = 5  # in which requests may end once the server is to end


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        MachineError: If the address is not of this machine, or in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # a label of a name that is empty or too long
        reason = error.strerror if isinstance(error, OSError) else "no host name"
        raise MachineError(
            f"cannot listen on {host}, port {port} ({reason}); expected an address of this "
            "machine and a free port: name others by --host and --port"
        ) from error


def is_loopback(taken: socket.socket) -> bool:
    """Whether only this machine can connect to a socket."""
    return ipaddress.ip_address(taken.getsockname()[0]).is_loopback


def address(taken: socket.socket) -> str:
    """URL of a socket."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Connection(H11Protocol):
    """A connection that is closed where it asks nothing, takes long to say what, or reads nothing.

    uvicorn waits for the first request of a connection, for the end of a heading, and for a client
    to read its answers, for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look after it."""
        super().connection_made(transport)
        self.loop.call_later(IDLE_SECONDS, self._look, None, 0)

    def _look(self, before: RequestResponseCycle | None, left: int) -> None:
        if self not in self.connections:  # lost
            return
        now, size = self.cycle, self.transport.get_write_buffer_size()
        if size and size == left:  # its client reads nothing
            self.transport.abort()
            return
        if now is before and (now is None or now.response_complete):
            self.transport.close()
        self.loop.call_later(IDLE_SECONDS, self._look, now, size)

    def shutdown(self) -> None:
        """End it with the server, which would wait for ever for a client that reads nothing."""
        if self.flow.write_paused:
            self.transport.abort()
        else:
            super().shutdown()


@contextlib.contextmanager
def running(app: ASGIApp, taken: socket.socket, limits: Limits) -> Iterator[threading.Event]:
    """Context of a server in a thread; its event is set early only if the server fails."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS + limits.waiting,
            timeout_graceful_shutdown=LEAVE_SECONDS,
        )
    )
    # An event, since joining a thread that a signal interrupts takes it for ended (Python 3.11).
    ended = threading.Event()

    def serve() -> None:
        try:
            server.run([taken])
        finally:
            ended.set()

    # Not in the main thread, where uvicorn would take the signals that end a command.
    thread = threading.Thread(target=serve, name="server", daemon=True)
    thread.start()
    try:
        while not server.started and not ended.is_set():
            time.sleep(0.01)
        yield ended
    finally:
        server.should_exit = True
        thread.join()
        taken.close()
