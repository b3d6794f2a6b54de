"""`python -m stages.prepare CORPUS`: a corpus, to the tables that extraction and training read."""

from __future__ import annotations

from pathlib import Path

import typer

from features.errors import ParamsError
from features.preparation import corpus_entry, prepare
from pipeline.params import read_params
from stages._run import LISTED, list_told, run


def main(corpus: str) -> None:
    """Write data/CORPUS/utterances and data/CORPUS/labels."""
    corpora = read_params(Path("params.yaml")).corpora
    if corpus not in corpora:
        raise ParamsError(f"corpora: no entry {corpus!r}; expected one of {sorted(corpora)}")
    out = Path("data", corpus)
    done = prepare(corpus, corpus_entry(corpus, corpora[corpus]), out)
    list_told("rejected", done.rejected, done.card["rejected_reasons"])
    list_told("noticed", done.noticed, done.card["noticed_reasons"])
    speakers = "; ".join(
        ", ".join(f"{count} {split}" for split, count in fold.items())
        for fold in done.card["speakers"]
    )
    typer.echo(
        f"{out}: {done.utterances} utterances, {done.hours:.2f} hours, "
        f"{len(done.card['classes'])} classes, speakers by fold: {speakers}; "
        f"{len(done.rejected)} rejected, {len(done.noticed)} noticed"
    )
    for warning in done.card["warnings"][:LISTED]:
        typer.echo(f"  warning: {warning}", err=True)
    for difference in done.card["differences"][:LISTED]:
        typer.echo(f"  differs from the published counts: {difference}", err=True)
    for leak in done.card["leaks"]:
        typer.echo(f"  warning: {leak}", err=True)


if __name__ == "__main__":
    run(main)
