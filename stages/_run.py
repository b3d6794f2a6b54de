"""Run a stage's command line, and print what it reports of utterances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import typer

from features.process.command import run_command

LISTED = 20  # utterances or reasons that are printed


def run(command: Callable[..., None]) -> None:
    """Run `command` with the process's arguments: see `features.process.command`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_command(app)


def warn_leaks(leaks: Iterable[str]) -> None:
    """Print the leaks that params.yaml allows."""
    for leak in leaks:
        typer.echo(f"  warning: {leak}", err=True)


def list_utterances(what: str, found: Mapping[str, str], reasons: Mapping[str, int]) -> None:
    """Print the first utterances with their reasons, and the count of each reason if more follow.

    Args:
        what: What happened to the utterances, such as "rejected".
        found: Reason of each utterance, by id.
        reasons: Number of utterances for each reason.
    """
    for id, reason in list(found.items())[:LISTED]:
        typer.echo(f"  {what} {id}: {reason}", err=True)
    if len(found) > LISTED:
        typer.echo(f"  {len(found)} {what} in all, by reason:", err=True)
        for reason, count in list(reasons.items())[:LISTED]:
            typer.echo(f"  {count}: {reason}", err=True)
