"""`python -m stages.look CORPUS`: record the files below a corpus root, which DVC cannot track."""

from __future__ import annotations

from pathlib import Path

import typer

from features.corpus.entry import corpus_entry
from features.corpus.sources import record_path, renew_record
from pipeline.params.catalogue.entries import known_entry
from pipeline.params.selection import read_corpora
from stages._run import run


def main(corpus: str) -> None:
    """Write sources/CORPUS.json; without a root, the record of a team mate stays."""
    corpora = read_corpora(Path("params.yaml"))
    entry = corpus_entry(corpus, known_entry("corpora", corpora, corpus), corpora)
    _, kept = renew_record(entry)
    if kept is not None:
        typer.echo(f"{record_path(corpus)} stays as it is: {kept}", err=True)


if __name__ == "__main__":
    run(main)
