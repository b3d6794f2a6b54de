"""`python -m stages.e2e CORPUS FUSION`: audio and text to tuned backbones and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.locations import device
from pipeline.finetune import finetune_model
from pipeline.leak_gate import write_leaks
from pipeline.live_setup import check_live_leaks
from pipeline.params import read_params
from stages._run import run, warn_of


def main(
    corpus: str,
    fusion: str,
    *,
    threads: Annotated[int | None, typer.Option(help="Threads that decode ahead.")] = None,
) -> None:
    """Train models.FUSION with its backbones on CORPUS into runs/e2e/CORPUS/FUSION."""
    params = read_params(Path("params.yaml"))
    leaks = check_live_leaks(params, params.model(fusion), corpus)
    warn_of(leaks)
    out = finetune_model(params, fusion, corpus, device=device(), threads=threads)
    write_leaks(out, leaks)
    typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
