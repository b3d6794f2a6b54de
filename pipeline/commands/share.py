"""`heronry share setup URL`: set up the DVC remote of a team (docs/remotes.md)."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from features.settings.locations import expanded
from pipeline.storage.remote import LOCAL, SHARED, Remote, configured
from pipeline.storage.round_trip import PROBE_BYTES, reach, round_trip
from pipeline.storage.url import OWN, SECRETS, RemoteUrl, ShareError, parse_url

app = typer.Typer(no_args_is_help=True)

_URL = "A folder, s3://bucket/path, ssh://host/path, gs://.., azure://.. or https://.."
_OPTION = "Option of `dvc remote modify`, such as region=eu-west-1; may be repeated."
_SECRET = (
    "Secret that is asked for (or a line of standard input), never an argument; may be repeated."
)


@app.callback()
def share() -> None:
    """Set up the remote through which a team shares its features."""


@app.command(epilog="Example: heronry share setup s3://bucket/features --secret secret_access_key")
def setup(
    url: Annotated[str, typer.Argument(metavar="URL", help=_URL)],
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="DVC's name of the remote.")] = "team",
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An S3-compatible server other than Amazon's."),
    ] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=_OPTION)] = None,
    secret: Annotated[list[str] | None, typer.Option(metavar="KEY", help=_SECRET)] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Push no probe: the remote is only read.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a remote of that name that leads elsewhere.")
    ] = False,
) -> None:
    """Write the remote into DVC's configuration, and check that push and pull work."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ShareError(f"--name {name!r}; expected lower-case letters, digits, - and _")
    address = _address(url)
    options = _options([*(option or ()), *_endpoint(address, endpoint_url)])
    remote = Remote(name, address, options, _ask(secret or ()))
    with configured(remote, force=force):
        if read_only:
            reach(remote)
            outcome = "it answers; nothing was written"
        else:
            seconds, left = round_trip(remote)
            outcome = f"pushed and pulled {PROBE_BYTES} bytes in {seconds:.1f} s" + (
                f"; {left} could not be removed" if left else ", and removed them"
            )
    typer.echo(f"{name}: {address.url}: {outcome}")
    typer.echo(f"{SHARED} has {', '.join(remote.shared)}: commit it")
    if remote.local:
        typer.echo(f"{LOCAL} has {', '.join(remote.local)}: on this machine alone")
    if address.secrets:
        typer.echo("the password of the URL is still in your shell's history", err=True)


def _address(url: str) -> RemoteUrl:
    address = parse_url(url)
    if address.scheme:
        return address
    folder = expanded(url).resolve()
    if folder.is_relative_to(Path.cwd()):
        raise ShareError(f"{folder} lies inside the project; expected a folder outside of it")
    if not folder.parent.is_dir():
        # Else a network share that is not mounted would become a folder on this machine's disk.
        raise ShareError(
            f"{folder.parent} does not exist; expected the folder {folder.name!r} in a folder that "
            "is there: is the share mounted?"
        )
    return RemoteUrl(str(folder), "")


def _endpoint(address: RemoteUrl, given: str | None) -> list[str]:
    if given is None:
        return []
    if address.scheme not in ("s3", "gs"):
        raise ShareError(f"--endpoint-url with {address.url}; expected it with s3:// or gs:// only")
    if parse_url(given).scheme not in ("http", "https"):
        raise ShareError("--endpoint-url: expected such as https://host or http://host:port")
    return [f"endpointurl={given}"]


def _options(given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for each in given:
        key, sign, value = each.partition("=")
        if key in SECRETS:
            raise ShareError(
                f"--option {key}=...: is a secret, and the command line is no place for it; "
                f"expected `--secret {key}`, which asks for it"
            )
        if not sign or not value or key == "url":
            raise ShareError(f"--option {key}: expected KEY=VALUE such as region=eu-west-1")
        pairs[key] = value
    return pairs


def _ask(keys: Sequence[str]) -> dict[str, str]:
    found = {}
    for key in keys:
        if key not in SECRETS:
            kind = "it is none, give it by --option" if key in OWN else "see docs/remotes.md"
            raise ShareError(f"--secret {key!r}; expected one of {sorted(SECRETS)} ({kind})")
        given = getpass.getpass(f"{key}: ") if sys.stdin.isatty() else sys.stdin.readline()
        if not given.strip():
            raise ShareError(f"--secret {key}: nothing was given; expected a line")
        found[key] = given.strip()
    return found
