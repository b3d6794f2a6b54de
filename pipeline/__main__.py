"""Commands for people: `python -m pipeline check`, `show` and `recipe`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from features.errors import HeronryError, ParamsError
from features.records import read_json
from pipeline.check import check as find_problems
from pipeline.evaluation import headline
from pipeline.params import read_params
from pipeline.recipes import command_line, read_recipe

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def check(
    *, deep: Annotated[bool, typer.Option(help="Also hash every audio file.")] = False
) -> None:
    """Validate params, slots, the corpus root and checkpoints; list every problem at once."""
    found = find_problems(read_params(Path("params.yaml")), deep=deep)
    if found:
        raise ParamsError("\n".join([f"{len(found)} problems:", *(f"- {line}" for line in found)]))
    typer.echo("check: params, slots, corpus and checkpoints are in order")


@app.command()
def recipe(name: str) -> None:
    """Print a recipe's settings for `dvc exp run $(python -m pipeline recipe NAME)`."""
    typer.echo(command_line(read_recipe(name)))


@app.command()
def show() -> None:
    """Print the headline table of the last report, and where its page is."""
    typer.echo(headline(read_json(Path("reports", "metrics.json"))))
    typer.echo(f"report: {Path('reports', 'index.html').resolve()}")


def main() -> None:
    """Run the command line; a user's error is a message and exit status 1."""
    try:
        app()
    except HeronryError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
