"""`python -m stages.train CORPUS FUSION`: cached features to trained models and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.locations import device
from pipeline.leak_gate import check_leaks, write_leaks
from pipeline.params import read_params
from pipeline.pulled import check_pulled
from pipeline.train import filled_slots, train_model
from stages._run import run, warn_of


def main(
    corpus: str,
    fusion: str,
    *,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes side by side.")
    ] = None,
) -> None:
    """Train models.FUSION on CORPUS into runs/cached/CORPUS/FUSION."""
    params = read_params(Path("params.yaml"))
    model, labels = params.model(fusion), Path("data", corpus, "labels")
    slots = filled_slots(params, model, corpus)
    check_pulled([labels, *slots.values(), Path("cache", corpus, model.asr)])
    leaks = check_leaks(labels, slots)
    warn_of(leaks)
    out = train_model(params, fusion, corpus, device=device(), workers=workers)
    write_leaks(out, leaks)
    typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
