"""`python -m stages.e2e CORPUS FUSION`: audio and text to tuned backbones and predictions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from features.locations import device
from pipeline.finetune import finetune_model
from pipeline.leak_gate import write_leaks
from pipeline.live_setup import cached_slots, check_live_leaks
from pipeline.params import read_params
from pipeline.pulled import check_pulled
from pipeline.ranks_launch import joined, relaunch
from stages._run import run, warn_of


def main(
    corpus: str,
    fusion: str,
    *,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that decode ahead.")
    ] = None,
) -> None:
    """Train models.FUSION with its backbones on CORPUS into runs/e2e/CORPUS/FUSION.

    With HERONRY_E2E_LAUNCH="accelerate launch --multi_gpu --num_processes 4" on four GPUs.
    """
    relaunch("stages.e2e", sys.argv[1:])
    params = read_params(Path("params.yaml"))
    model, data = params.model(fusion), Path("data", corpus)
    check_pulled(
        [data / "labels", data / "utterances", *cached_slots(params, model, corpus).values()]
    )
    leaks = check_live_leaks(params, model, corpus)
    where = device()
    with joined(where) as ranks:
        if ranks.is_first:
            warn_of(leaks)
        out = finetune_model(params, fusion, corpus, device=where, threads=threads, ranks=ranks)
        if ranks.is_first:
            write_leaks(out, leaks)
            typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
