"""`heronry serve`: a trained run on a web page."""

from __future__ import annotations

import importlib.util
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import typer

from features.errors import MachineError, ParamsError
from features.settings.locations import device as best_device
from features.transcription.recogniser import Recogniser
from pipeline.commands.predict import transcription_settings
from pipeline.handover.loading import load_run

NEEDED = ("fastapi", "uvicorn", "python_multipart")
TOKEN = "HERONRY_TOKEN"
SHORTEST_TOKEN = 16


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


def serve(asked: Asked) -> None:
    """Serve a run until Ctrl-C.

    Raises:
        HeronryError: If the run, a backbone, an option or the address is wrong.
    """
    check_installed()
    from pipeline.serve.app import serving
    from pipeline.serve.gate import Access
    from pipeline.serve.limits import Limits
    from pipeline.serve.server import address, is_loopback, listening, running

    limits = Limits(asked.megabytes, asked.seconds, asked.waiting)
    with listening(asked.host, asked.port) as taken:  # before minutes of loading
        token = chosen_token(loopback=is_loopback(taken))
        names = frozenset(name.lower() for name in (*asked.names, asked.host))
        device = asked.device or best_device()
        model = load_run(asked.run, device=device, seed=asked.seed, fold=asked.fold)
        recogniser = Recogniser(transcription_settings(), device) if asked.transcribe else None
        with (
            serving(model, recogniser, Access(token, names), limits) as app,
            running(app, taken, limits) as ended,
        ):
            shown = address(taken) + (f"#token={token}" if token else "")
            typer.echo(f"serving {asked.run}: {shown}")
            ended.wait()
    raise MachineError("the server ended by itself; expected Ctrl-C: what it printed says why")


def check_installed() -> None:
    """Refuse to serve where a package for it is not installed.

    Raises:
        ParamsError: Naming them.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ParamsError(
            f"serve needs {' and '.join(missing)}, not installed here; run `python -m pip "
            "install --editable '.[serve]'` in a clone of heronry"
        )


def chosen_token(*, loopback: bool) -> str | None:
    """The token of the environment; else a new one, or none where only this machine connects.

    Raises:
        ParamsError: If the token is too short to be one.
    """
    given = os.environ.get(TOKEN, "")
    if not given:
        return None if loopback else secrets.token_urlsafe(24)
    if len(given) < SHORTEST_TOKEN or not given.isascii() or not given.isprintable():
        raise ParamsError(
            f"{TOKEN} has {len(given)} characters; expected at least {SHORTEST_TOKEN} of ASCII: "
            "leave it unset, and one is made"
        )
    return given
