"""How every stage starts and fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer

from features.errors import HeronryError

LISTED = 20  # of what is told of single utterances


def run(command: Callable[..., None]) -> None:
    """Run `command` with the process's arguments; a `HeronryError` becomes one message, exit 1.

    Any other exception is a bug and keeps its traceback.
    """
    try:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command)
        app()
    except HeronryError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


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
