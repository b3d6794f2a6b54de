"""`python -m stages.prepare CORPUS`: write the tables that extraction and training read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from features.corpus.entry import corpus_entry
from features.corpus.label_checks import named
from features.corpus.prepare import prepare
from features.corpus.sources import differences, record_path, take_record, write_record
from features.corpus.targets import target_facts
from features.errors import ManifestError
from pipeline.params.catalogue.entries import known_entry
from pipeline.params.selection import read_corpora
from stages._run import LISTED, list_utterances, run, warn_leaks


def main(corpus: str) -> None:
    """Write data/CORPUS/utterances, data/CORPUS/labels and data/CORPUS/ratings."""
    corpora = read_corpora(Path("params.yaml"))
    entry = corpus_entry(corpus, known_entry("corpora", corpora, corpus), corpora)
    out = Path("data", corpus)
    record = take_record(entry)
    done = prepare(entry, out)
    if done.card["tables"] != record.get("tables", {}):
        raise ManifestError(
            f"the tables of corpus {corpus!r} were edited while they were read: "
            f"{'; '.join(differences(record, done.card))}. Run this again"
        )
    # The stage `look` writes it too, but does not run with --single-item or without DVC.
    write_record(record_path(corpus), record)
    list_utterances("rejected", done.rejected, done.card["rejected_reasons"])
    list_utterances("noticed", done.noticed, done.card["noticed_reasons"])
    speakers = "; ".join(
        ", ".join(f"{count} {split}" for split, count in fold.items())
        for fold in done.card["speakers"]
    )
    typer.echo(
        f"{out}: {done.utterances} utterances, {done.hours:.2f} hours, "
        f"{len(done.card['classes'])} classes, speakers by fold: {speakers}; "
        f"{len(done.rejected)} rejected, {len(done.noticed)} noticed"
    )
    if done.card["classes"]:
        typer.echo(f"classes: {named(done.card['classes'])}")
    if "targets" in done.card:
        for name, text in target_facts(done.card["targets"]):
            typer.echo(f"{name}: {text}")
        typer.echo(f"ratings: {done.ratings}")
    _list("warning", done.card["warnings"])
    _list("differs from the published counts", done.card["differences"])
    warn_leaks(done.card["leaks"])


def _list(what: str, lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        typer.echo(f"  {what}: {line}", err=True)
    if len(lines) > LISTED:
        typer.echo(f"  and {len(lines) - LISTED} more, in card.json", err=True)


if __name__ == "__main__":
    run(main)
