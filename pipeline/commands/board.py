"""`heronry board`: rank the experiments, and mark those that tie with the best one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import typer

from features.arguments import refuse
from features.files.yaml_text import read_params_file
from pipeline.board.details import read_details
from pipeline.board.output import as_json, as_text
from pipeline.board.rows import read_shown, with_details
from pipeline.board.run_folders import with_run_folders
from pipeline.board.ties import groups
from pipeline.storage.dvc_command import dvc_output, torn_locks
from pipeline.storage.experiments import below_other_commits


def board(
    *, metric: str, sort: str, all_commits: bool, quick: bool, unit: str | None, as_object: bool
) -> None:
    """List the experiments, best on validation first, marking those that test no worse."""
    words = ["exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    # DVC would show no workspace, and not say why.
    read_params_file(Path("params.yaml"))
    refuse(torn_locks())
    shown = read_shown(json.loads(dvc_output(words)))
    shown = with_run_folders(shown, Path("runs"), score=not quick)
    shown = with_details(shown, metric, read_details)
    shown = replace(shown, elsewhere=0 if all_commits else below_other_commits())
    found = groups(shown, metric, sort=sort, tests=not quick, unit=unit)
    typer.echo(as_json(found, shown, metric) if as_object else as_text(found, shown, metric))
