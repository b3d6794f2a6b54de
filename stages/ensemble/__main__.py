"""`python -m stages.ensemble CORPUS ENSEMBLE`: predictions of finished runs, combined."""

from __future__ import annotations

from pathlib import Path

import typer

from features.corpus.labels_folder import CARD, read_card
from features.corpus.leak_gate import check_leaks, write_leaks
from features.files.yaml_text import read_params_file
from pipeline.ensemble.run import combine
from pipeline.params.ensembles import ensemble_entry
from pipeline.report.model_card import write_model_card
from stages._run import run, warn_leaks


def main(corpus: str, ensemble: str) -> None:
    """Combine the members of ensembles.ENSEMBLE on CORPUS into runs/ensemble/CORPUS/ENSEMBLE."""
    entry = ensemble_entry(read_params_file(Path("params.yaml")), ensemble)
    labels = Path("data", corpus, "labels")
    out, leaks = combine(entry, corpus, check_leaks(labels, {}))
    warn_leaks(leaks["lines"])
    write_leaks(out, leaks)
    write_model_card(out, read_card(labels / CARD))
    typer.echo(f"{out}: combined from {len(entry.members)} members")


if __name__ == "__main__":
    run(main)
