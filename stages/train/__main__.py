"""`python -m stages.train CORPUS FUSION`: cached features to trained models and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.corpus.labels_folder import CARD, read_card
from features.corpus.leak_gate import check_leaks, write_leaks
from features.settings.locations import device
from pipeline.cached.run import train_model
from pipeline.params.file import read_params
from pipeline.report.model_card import write_model_card
from pipeline.runs.record import filled_slots
from pipeline.storage.lock_check import check_locked
from stages._run import run, warn_leaks


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
    check_locked([labels, *slots.values(), Path("cache", corpus, model.asr)])
    leaks = check_leaks(labels, slots)
    warn_leaks(leaks["lines"])
    out = train_model(params, fusion, corpus, device=device(), workers=workers)
    write_leaks(out, leaks)
    write_model_card(out, read_card(labels / CARD))
    typer.echo(f"{out}: trained")


if __name__ == "__main__":
    run(main)
