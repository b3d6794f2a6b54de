"""`python -m stages.train CORPUS FUSION`: cached features to trained models and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.locations import device
from pipeline.params import read_params
from pipeline.train import train_model
from stages._run import run


def main(
    corpus: str,
    fusion: str,
    *,
    workers: Annotated[int | None, typer.Option(help="Processes side by side.")] = None,
) -> None:
    """Train models.FUSION on CORPUS into runs/cached/CORPUS/FUSION."""
    params = read_params(Path("params.yaml"))
    out = train_model(params, fusion, corpus, device=device(), workers=workers)
    typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
