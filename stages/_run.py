"""How every stage starts and fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer

from features.errors import HeronryError


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
