"""`python -m stages.transcribe CORPUS`: recognise the words of a corpus."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from features.corpus.manifest import Manifest
from features.corpus.places import with_audio
from features.errors import ManifestError
from features.files.reasons import count_reasons
from features.settings.locations import devices, store_root
from features.transcription.transcribe import Transcribed, skip, transcribe
from pipeline.params.catalogue.entries import known_entry
from pipeline.params.file import read_params
from pipeline.runs.word_errors import word_errors
from stages._run import list_utterances, run


def main(
    corpus: str,
    *,
    strict: Annotated[bool, typer.Option(help="Fail if an utterance is rejected.")] = False,
    device: Annotated[
        str | None, typer.Option("--devices", help="Such as cpu, cuda, or 0,1,2 for three GPUs.")
    ] = None,
) -> None:
    """Write data/CORPUS/transcripts: recognised words, if `transcribe` names the corpus."""
    params = read_params(Path("params.yaml"))
    known_entry("corpora", params.corpora, corpus)
    settings, out = params.transcription(), Path("data", corpus, "transcripts")
    if corpus not in settings.corpora:
        skip(out)
        typer.echo(f"{out}: not transcribed; `transcribe.corpora` of params.yaml does not name it")
        return
    folder = Path("data", corpus, "utterances")
    manifest = with_audio(Manifest.read(folder), folder)
    start = time.monotonic()
    done = transcribe(manifest, settings, out, store=store_root(), devices=devices(device))
    _report(done, manifest, out, time.monotonic() - start)
    if strict and done.rejected:
        raise ManifestError(
            f"{len(done.rejected)} utterances were rejected and --strict was given; see "
            f"{out / 'rejected.csv'}"
        )


def _report(done: Transcribed, manifest: Manifest, out: Path, seconds: float) -> None:
    empty = sum(not words for words in done.words.values())
    typer.echo(
        f"{out}: {len(done.words)} utterances with words of a recogniser, {empty} of them empty; "
        f"{done.computed} computed, {len(done.rejected)} rejected, {seconds:.1f} s"
    )
    if done.seconds:
        hour = 3600 * seconds / done.seconds
        typer.echo(f"{done.seconds / 3600:.2f} hours of audio, {hour:.0f} s for each")
    pairs = ((u.text, done.words[u.id]) for u in manifest if u.id in done.words)
    found = word_errors((text, words) for text, words in pairs if text is not None)
    if found.rate is not None:
        typer.echo(
            f"word error rate against the reference: {found.rate:.1%} of {found.words} words"
        )
    list_utterances("rejected", done.rejected, count_reasons(done.rejected.values()))


if __name__ == "__main__":
    run(main)
