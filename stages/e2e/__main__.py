"""`python -m stages.e2e CORPUS FUSION`: audio and text to tuned backbones and predictions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from features.corpus.labels_folder import CARD, read_card
from features.corpus.leak_gate import write_leaks
from features.settings.locations import device
from pipeline.e2e.run import finetune_model
from pipeline.e2e.setup import cached_slots, check_live_leaks
from pipeline.params.file import read_params
from pipeline.report.model_card import write_model_card
from pipeline.runtime.launch import joined, relaunch
from pipeline.storage.lock_check import check_locked
from stages._run import run, warn_leaks


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
    check_locked(
        [data / "labels", data / "utterances", *cached_slots(params, model, corpus).values()]
    )
    leaks = check_live_leaks(params, model, corpus)
    where = device()
    with joined(where) as ranks:
        if ranks.is_first:
            warn_leaks(leaks["lines"])
        out = finetune_model(params, fusion, corpus, device=where, threads=threads, ranks=ranks)
        if ranks.is_first:
            write_leaks(out, leaks)
            write_model_card(out, read_card(data / "labels" / CARD))
            typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
