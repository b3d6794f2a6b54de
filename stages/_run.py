"""How every stage starts and fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer

from features.process.command import run_command

LISTED = 20  # of what is told of single utterances


def run(command: Callable[..., None]) -> None:
    """Run `command` with the process's arguments: see `features.process.command`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_command(app)


def warn_of(leaks: Mapping[str, Any]) -> None:
    """Tell of the leaks that params.yaml allows."""
    for leak in leaks["lines"]:
        typer.echo(f"  warning: {leak}", err=True)


def list_told(what: str, told: Mapping[str, str], reasons: Mapping[str, int]) -> None:
    """The first of what is told of utterances, and how often each reason stands, if more do."""
    for id, reason in list(told.items())[:LISTED]:
        typer.echo(f"  {what} {id}: {reason}", err=True)
    if len(told) > LISTED:
        typer.echo(f"  {len(told)} {what} in all, by reason:", err=True)
        for reason, count in list(reasons.items())[:LISTED]:
            typer.echo(f"  {count}: {reason}", err=True)
