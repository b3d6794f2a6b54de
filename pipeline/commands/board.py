"""`python -m pipeline board`: rank the experiments, and mark those that tie with the best one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from features.errors import ParamsError
from pipeline.board.output import as_json, as_text
from pipeline.board.rows import read_shown
from pipeline.board.ties import groups
from pipeline.compare.rows import UNIT
from pipeline.evaluation.rows import UNITS
from pipeline.storage.dvc_command import dvc_output

SORTS = ("metric", "name", "fusion", "regime", "seeds", "seconds")
_METRIC = (
    "Number of reports/metrics.json that ranks, such as valid_uar. Scores of the test split rank "
    "too, but the best of many by them is partly luck."
)


def board(
    *,
    metric: Annotated[str, typer.Option(help=_METRIC)] = "valid_weighted_f1",
    sort: Annotated[str, typer.Option(help=f"Order of rows: {', '.join(SORTS)}.")] = "metric",
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Experiments of all commits, not just the last.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read no predictions: ties by intervals alone.")
    ] = False,
    unit: Annotated[str | None, typer.Option(help=f"{UNIT} For the test of ties.")] = None,
    as_object: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """List the experiments, best on validation first, marking those that test no worse."""
    if sort not in SORTS:
        raise ParamsError(f"--sort {sort!r}; expected one of {list(SORTS)}")
    if unit not in (None, *UNITS):
        raise ParamsError(f"--unit {unit!r}; expected one of {list(UNITS)}")
    words = ["exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    shown = read_shown(json.loads(dvc_output(words)))
    found = groups(shown, metric, sort=sort, tests=not quick, unit=unit)
    typer.echo(as_json(found, shown, metric) if as_object else as_text(found, shown, metric))
