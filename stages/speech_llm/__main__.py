"""`python -m stages.speech_llm CORPUS ENTRY`: a speech language model is asked about a corpus."""

from __future__ import annotations

from pathlib import Path

import typer

from features.corpus.leak_gate import write_leaks
from features.settings.locations import device, store_root
from pipeline.params.file import read_params
from pipeline.params.speech_llm import ENDPOINT
from pipeline.speech_llm.leaks import check_asked_leaks
from pipeline.speech_llm.run import ask_corpus
from pipeline.storage.lock_check import check_locked
from stages._run import run, warn_leaks


def main(corpus: str, name: str) -> None:
    """Ask speech_llms.NAME about CORPUS into runs/speech_llm/CORPUS/NAME."""
    entry = read_params(Path("params.yaml")).speech_llm(name)
    data = Path("data", corpus)
    check_locked([data / "labels", data / "utterances"])
    leaks = check_asked_leaks(entry, corpus)
    warn_leaks(leaks["lines"])
    where = "cpu" if entry.kind == ENDPOINT else device()
    out = ask_corpus(entry, corpus, store=store_root(), device=where)
    write_leaks(out, leaks)
    typer.echo(f"{out}: answered")


if __name__ == "__main__":
    run(main)
