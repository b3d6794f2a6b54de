"""Which requests reach the app: their host, origin, token, size, duration and number.

A page of another site can have a visitor's browser send requests to a server on loopback, and by a
host name of its own that it points there (DNS rebinding) read the answers as well. So a request
must name a host that no stranger can point elsewhere, and come from the server's own page.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.limits import UPLOAD_SECONDS, Limits
from pipeline.serve.problems import Refused

API = "/api/"
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
# Scripts and styles from this server alone; nothing is sent anywhere else, and no page frames ours.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_ENDING = Refused(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "a server that is about to end",
    "one that runs",
    "start it again with `heronry serve`",
)


@dataclass(frozen=True)
class Access:
    """Who is answered.

    Attributes:
        token: What requests must carry; None: nothing.
        names: Host names that lead here, beside `localhost` and all addresses.
    """

    token: str | None = None
    names: frozenset[str] = field(default_factory=frozenset)

    def refusal(self, headers: Headers, path: str) -> Refused | None:
        """Why a request is refused; None if it is not."""
        host = headers.get("host", "")
        if not self._ours(host):
            return Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"the host {host[:100]!r}",
                "localhost, an address, or a name that the server was started with",
                "start it with `--name` and the name by which it is reached",
            )
        if not path.startswith(API):
            return None
        # A page that was fetched through a proxy may have another scheme, but has the same host.
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        other = origin is not None and _netloc(origin) != host.lower()
        if other or site not in ("same-origin", "none"):
            return Refused(
                HTTPStatus.FORBIDDEN,
                f"a request from a page of {(origin or 'another site')[:100]}",
                f"one from the page of {host}",
                "open the server's own page, or call it from no page at all",
            )
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if self.token is None or (
            scheme.lower() == "bearer"  # of any case (RFC 9110, section 11.1)
            and secrets.compare_digest(given.encode(), self.token.encode())
        ):
            return None
        return Refused(
            HTTPStatus.UNAUTHORIZED,
            "no token, or another one",
            "the header `Authorization: Bearer TOKEN`",
            "open the address that the server printed when it started, which ends with the token",
            {"WWW-Authenticate": "Bearer"},
        )

    def _ours(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = (found[1] or found[2]).lower()
        if name == "localhost" or name in self.names:
            return True
        try:  # nobody can have an address lead elsewhere
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Gate:
    """An app behind its limits.

    Args:
        app: The app.
        access: Who is answered.
        limits: How much.

    Attributes:
        inside: Number of requests that are uploaded, wait or are computed.
    """

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self._access, self._limits = app, access, limits
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":  # whatever it is, it was not checked
            raise NotImplementedError(f"scope of type {scope['type']!r}; expected 'http'")
        began = False

        async def protected(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._access.refusal(headers, scope["path"]) or self._too_much(scope, headers)
        if refusal is not None:
            await refusal.response(scope, receive, protected)
            return
        counts = scope["method"] == "POST"
        self.inside += counts
        try:
            await self.app(scope, self._limited(receive), protected)
        except asyncio.CancelledError:  # the server ends, or the client has left: no traceback
            if not began:
                await _ENDING.response(scope, receive, protected)
        finally:
            self.inside -= counts

    def _too_much(self, scope: Scope, headers: Headers) -> Refused | None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.body_bytes:
            return self._too_large()
        if scope["method"] == "POST" and self.inside >= self._limits.waiting:
            return Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.inside} requests wait",
                f"at most {self._limits.waiting} at a time",
                "ask again in some seconds",
                {"Retry-After": "5"},
            )
        return None

    def _too_large(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "a clip of too many bytes",
            f"at most {self._limits.megabytes:g} MB",
            "send a shorter clip, or FLAC in place of WAV",
        )

    def _limited(self, receive: Receive) -> Receive:
        """Messages of a body, as many bytes and as long as is allowed."""
        deadline, size, whole = time.monotonic() + UPLOAD_SECONDS, 0, False

        async def limited() -> Message:
            nonlocal size, whole
            if whole:  # later messages only say that the client has left
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"an upload that is not whole after {UPLOAD_SECONDS:g} s",
                    "a faster one",
                    "send a shorter clip, or FLAC in place of WAV",
                ) from None
            size += len(message.get("body", b""))
            if size > self._limits.body_bytes:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return limited


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
