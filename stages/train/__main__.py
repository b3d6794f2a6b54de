"""`python -m stages.train CORPUS FUSION`: cached features to trained models and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.locations import device
from pipeline.leak_gate import check_leaks, write_leaks
from pipeline.params import read_params
from pipeline.train import filled_slots, train_model
from stages._run import run, warn_of


def main(
    corpus: str,
    fusion: str,
    *,
    workers: Annotated[int | None, typer.Option(help="Processes side by side.")] = None,
) -> None:
    """Train models.FUSION on CORPUS into runs/cached/CORPUS/FUSION."""
    params = read_params(Path("params.yaml"))
    slots = filled_slots(params, params.model(fusion), corpus)
    leaks = check_leaks(Path("data", corpus, "labels"), slots)
    warn_of(leaks)
    out = train_model(params, fusion, corpus, device=device(), workers=workers)
    write_leaks(out, leaks)
    typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
