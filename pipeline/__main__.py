"""Commands for people, such as `python -m pipeline check`; `--help` lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.arguments import in_lines
from features.doctor.quarantine import MENDED
from features.errors import ParamsError
from features.process.command import run_command
from features.settings.locations import store_root
from pipeline.commands.add import add
from pipeline.commands.board import board
from pipeline.commands.build import build
from pipeline.commands.cache import cache
from pipeline.commands.check import check as find_problems
from pipeline.commands.compare import compare
from pipeline.commands.corpora import describe, overview
from pipeline.commands.doctor import caches, examine
from pipeline.commands.join import join
from pipeline.commands.plan import corpus_changes
from pipeline.commands.plan import plan as what_would_run
from pipeline.commands.share import app as share
from pipeline.params.file import read_params, read_unchecked
from pipeline.params.recipes import command_line, lacking_entries, read_recipe
from pipeline.params.selection import unwritten_slots
from pipeline.report.metrics_json import headline, read_metrics
from pipeline.storage.dvc_command import obstacles

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(add)
app.command()(board)
app.command()(build)
app.add_typer(share, name="share")
app.add_typer(cache, name="cache")


@app.command()
def check(
    *, deep: Annotated[bool, typer.Option(help="Also hash every audio file.")] = False
) -> None:
    """Validate params, slots, the corpus (without its audio) and checkpoints; list all problems."""
    for line in obstacles():
        typer.echo(f"note: {line}")
    params = read_unchecked(Path("params.yaml"))
    found = unwritten_slots(params.models)
    found += find_problems(params, deep=deep, tell=typer.echo)
    if found:
        lines = in_lines([f"- {line}" for line in found])
        raise ParamsError(f"{len(found)} problems:\n{lines}")
    typer.echo("check: params, slots, corpus and checkpoints are in order")


app.command()(compare)


@app.command()
def corpora(
    name: Annotated[str | None, typer.Argument(help="Default: a line for each corpus.")] = None,
) -> None:
    """List the corpora of params.yaml, or print the card of one."""
    params = read_params(Path("params.yaml"))
    for line in overview(params) if name is None else describe(params, name):
        typer.echo(line)


@app.command()
def doctor(
    folders: Annotated[list[Path] | None, typer.Argument(help="Default: all of cache/.")] = None,
    *,
    repair: Annotated[bool, typer.Option(help="Move bad files to cache/.quarantine.")] = False,
    weights: Annotated[bool, typer.Option(help="Also load and hash the weights.")] = False,
) -> None:
    """Read caches completely and say what is wrong with them; exit status 1 if anything is."""
    wrong = []
    for folder in caches(folders or ()):
        found = examine(folder, weights=weights)
        for line in found.lines():
            typer.echo(line)
        for line in found.mend() if repair else ():
            typer.echo(f"     {line}")
        wrong += [fault for fault in found.faults if not repair or fault.remedy not in MENDED]
    if wrong:
        raise typer.Exit(1)


app.command()(join)


@app.command()
def plan(
    backbones: Annotated[list[str] | None, typer.Argument(help="Default: the slots'.")] = None,
) -> None:
    """Say what extraction would compute for the selected experiment, and why."""
    params = read_params(Path("params.yaml"))
    steps = what_would_run(params, store_root(), backbones)
    changes = corpus_changes(params)
    if changes:
        typer.echo(
            f"corpus {params.corpus!r} has changed since it was prepared: {'; '.join(changes)}. "
            "`dvc repro` prepares it again, and may then extract more than this:"
        )
    for step in steps:
        typer.echo(step.line())
    if not steps:
        typer.echo("no backbone: every slot of the model is `none`")


@app.command()
def recipe(name: str) -> None:
    """Print a recipe's settings for `dvc exp run $(python -m pipeline recipe NAME)`."""
    overrides = read_recipe(name)
    for line in lacking_entries(overrides, read_unchecked(Path("params.yaml"))):
        typer.echo(f"note: {line}", err=True)
    typer.echo(command_line(overrides))


@app.command()
def show() -> None:
    """Print the headline table of the last report, and where its page is."""
    typer.echo(headline(read_metrics(Path("reports", "metrics.json"))))
    typer.echo(f"report: {Path('reports', 'index.html').resolve()}")


def main() -> None:
    """Run the command line: see `features.process.command`."""
    run_command(app)


if __name__ == "__main__":
    main()
