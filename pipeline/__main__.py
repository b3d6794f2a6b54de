"""Command line of the project: `python -m pipeline check` and others; `--help` lists them."""

from __future__ import annotations

from pathlib import Path

import typer

from features.process.command import run_command
from pipeline.commands.add import add
from pipeline.commands.board import board
from pipeline.commands.build import build
from pipeline.commands.cache import cache
from pipeline.commands.check import check
from pipeline.commands.compare import compare
from pipeline.commands.corpora import corpora
from pipeline.commands.doctor import doctor
from pipeline.commands.join import join
from pipeline.commands.plan import plan
from pipeline.commands.schema import schema
from pipeline.commands.share import app as share
from pipeline.params.file import read_unchecked
from pipeline.params.recipes import command_line, lacking_entries, read_recipe
from pipeline.report.metrics_json import headline, read_metrics

EPILOG = (
    "Four commands inspect the project and compute nothing. `check`, before a run: are "
    "params.yaml, the corpus, the checkpoints and this machine in order? `plan`, before a run: "
    "what would be extracted, and why? `doctor`, afterwards: are the caches intact, and still "
    "those that params.yaml asks for? (With --repair it moves damaged files away.) "
    "`cache verify`: as `doctor`, but it never changes a file."
)
app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, epilog=EPILOG
)
for command in (add, board, build, check, compare, corpora, doctor, join, plan, schema):
    app.command()(command)
app.add_typer(share, name="share")
app.add_typer(cache, name="cache")


@app.command()
def recipe(name: str) -> None:
    """Print a recipe's settings for `dvc exp run $(python -m pipeline recipe NAME)`."""
    overrides = read_recipe(name)
    for line in lacking_entries(overrides, read_unchecked(Path("params.yaml"))):
        typer.echo(f"note: {line}", err=True)
    typer.echo(command_line(overrides))


@app.command()
def show() -> None:
    """Print the headline table of the last report, and the path of its page."""
    typer.echo(headline(read_metrics(Path("reports", "metrics.json"))))
    typer.echo(f"report: {Path('reports', 'index.html').resolve()}")


def main() -> None:
    """Run the command line: see `features.process.command`."""
    run_command(app)


if __name__ == "__main__":
    main()
