"""`heronry serve`: a trained run on a web page."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from features.errors import MachineError, ParamsError
from features.settings.extras import check_installed
from features.settings.locations import checked_device
from features.settings.locations import device as best_device
from features.transcription.recogniser import Recogniser
from pipeline.commands.predict import transcription_settings
from pipeline.handover.loading import load_run

NEEDED = ("fastapi", "uvicorn", "python_multipart")
TOKEN = "HERONRY_TOKEN"
SHORTEST_TOKEN = 16
NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        run: Run folder, that of a seed and fold in it, or an exported folder.
        host: Address to listen on.
        port: Port; 0: any that is free.
        names: Host names that lead to it.
        transcribe: Whether clients may have words recognised.
        seed: Seed of the models; None: all.
        fold: Fold of the models; None: all.
        device: Device by name; None: the best there is.
        megabytes: Most bytes of a clip, in 10^6.
        seconds: Longest clip.
        waiting: Most requests at a time.
        trust_remote_code: Whether a backbone may run code of its checkpoint's repository.
    """

    run: Path
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = field(default_factory=tuple)
    transcribe: bool = False
    seed: int | None = None
    fold: int | None = None
    device: str | None = None
    megabytes: float = 32.0
    seconds: float = 300.0
    waiting: int = 16
    trust_remote_code: bool = False


def serve(asked: Asked) -> None:
    """Serve a run until Ctrl-C.

    Raises:
        HeronryError: If the run, a backbone, an option or the address is wrong.
    """
    check_installed("serve", NEEDED, "serve")
    from pipeline.serve.app import serving
    from pipeline.serve.gate import Access
    from pipeline.serve.limits import Limits
    from pipeline.serve.server import is_loopback, listening, running

    limits = Limits(asked.megabytes, asked.seconds, asked.waiting)
    check_names(asked.names)
    with listening(asked.host, asked.port) as taken:  # before minutes of loading
        # The host of a name is a proxy, which connects from this machine for everybody.
        token = chosen_token(needed=bool(asked.names) or not is_loopback(taken))
        names = frozenset(name.lower() for name in (*asked.names, asked.host))
        device = checked_device(asked.device, "--device") if asked.device else best_device()
        settings = transcription_settings() if asked.transcribe else None
        model = load_run(
            asked.run,
            device=device,
            seed=asked.seed,
            fold=asked.fold,
            trust_remote_code=asked.trust_remote_code,
        )
        recogniser = None if settings is None else Recogniser(settings, device)
        with (
            serving(model, recogniser, Access(token, names), limits) as app,
            running(app, taken, limits) as ended,
        ):
            typer.echo(f"serving {asked.run}: {shown(taken, token)}")
            ended.wait()
    raise MachineError("the server ended by itself; expected Ctrl-C: what it printed says why")


def check_names(names: Sequence[str]) -> None:
    """Refuse a host name that no request can have, such as an address of a page.

    Raises:
        ParamsError: Quoting it.
    """
    for name in names:
        if NAME.fullmatch(name) is None:
            raise ParamsError(
                f"--name {name!r}: expected a host name alone, such as demo.example.org, without "
                "scheme, port, path or final dot; letters beyond ASCII in its form with xn--"
            )


def chosen_token(*, needed: bool) -> str | None:
    """The token of the environment; else a new one where one is needed.

    Raises:
        ParamsError: If the token is too short to be one, or has other characters.
    """
    given = os.environ.get(TOKEN, "")
    if not given:
        return secrets.token_urlsafe(24) if needed else None
    if re.fullmatch(rf"[!-~]{{{SHORTEST_TOKEN},}}", given) is None:
        raise ParamsError(
            f"{TOKEN} has {len(given)} characters; expected at least {SHORTEST_TOKEN} of ASCII, "
            "none of them a space: leave it unset, and one is made"
        )
    return given


def shown(taken: socket.socket, token: str | None) -> str:
    """The page's address as it is printed: logs keep no token that somebody has chosen."""
    from pipeline.serve.server import address

    ending = ""
    if token is not None and token == os.environ.get(TOKEN):
        percent = "" if urllib.parse.quote(token, safe="") == token else ", percent-encoded"
        ending = f"#token= followed by {TOKEN}{percent}"
    elif token is not None:
        ending = f"#token={token}"
    host = taken.getsockname()[0]
    if ipaddress.ip_address(host).is_unspecified:
        ending += f" (with any address of this machine in the place of {host})"
    return address(taken) + ending
