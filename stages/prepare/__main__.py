"""`python -m stages.prepare CORPUS`: a corpus, to the tables that extraction and training read."""

from __future__ import annotations

from pathlib import Path

import typer

from features.errors import ParamsError
from features.preparation import LISTED, corpus_entry, prepare
from pipeline.params import read_params
from stages._run import run


def main(corpus: str) -> None:
    """Write data/CORPUS/utterances and data/CORPUS/labels."""
    corpora = read_params(Path("params.yaml")).corpora
    if corpus not in corpora:
        raise ParamsError(f"corpora: no entry {corpus!r}; expected one of {sorted(corpora)}")
    out = Path("data", corpus)
    done = prepare(corpus, corpus_entry(corpus, corpora[corpus]), out)
    for id, reason in list(done.rejected.items())[:LISTED]:
        typer.echo(f"  rejected {id}: {reason}", err=True)
    if len(done.rejected) > LISTED:
        typer.echo(f"  {len(done.rejected)} rejected in all, by reason:", err=True)
        for reason, count in list(done.card["rejected_reasons"].items())[:LISTED]:
            typer.echo(f"  {count}: {reason}", err=True)
    speakers = "; ".join(
        ", ".join(f"{count} {split}" for split, count in fold.items())
        for fold in done.card["speakers"]
    )
    typer.echo(
        f"{out}: {done.utterances} utterances, {done.hours:.2f} hours, "
        f"{len(done.card['classes'])} classes, speakers by fold: {speakers}; "
        f"{len(done.rejected)} rejected"
    )
    for difference in done.card["differences"][:LISTED]:
        typer.echo(f"  differs from the published counts: {difference}", err=True)
    for leak in done.card["leaks"]:
        typer.echo(f"  warning: {leak}", err=True)


if __name__ == "__main__":
    run(main)
