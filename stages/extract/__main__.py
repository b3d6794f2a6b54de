"""`python -m stages.extract CORPUS BACKBONE`: extract the features of a corpus into a cache."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from features.arguments import checked
from features.corpus.manifest import Manifest
from features.corpus.places import with_audio
from features.errors import CacheError, ParamsError
from features.extraction.engines import Engine
from features.extraction.extract import Extraction, Options, extract
from features.files.reasons import count_reasons
from features.ranges import NotNegative
from features.settings.locations import devices, store_root
from features.transcription.transcripts import as_read, write_words
from pipeline.params.file import read_params
from pipeline.params.siblings import siblings_of
from stages._run import list_utterances, run


def main(  # noqa: PLR0913  each is an option
    corpus: str,
    backbone: str,
    *,
    strict: Annotated[bool, typer.Option(help="Fail if an utterance is rejected.")] = False,
    device: Annotated[
        str | None, typer.Option("--devices", help="Such as cpu, cuda, or 0,1,2 for three GPUs.")
    ] = None,
    batch_seconds: Annotated[
        float | None,
        typer.Option(
            help="Padded seconds of a batch; default: the backbone's own on a CPU, else 480."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, max=1024, help="Processes that prepare inputs, for each device."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="local, or ray for the hosts of a cluster.")
    ] = "local",
    part: Annotated[
        str | None,
        typer.Option(help="K/N: only the K-th of N parts (from 1), into the work store alone."),
    ] = None,
    only: Annotated[
        bool, typer.Option(help="Compute no other entry of the same network in the same pass.")
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option("--with", help="Entry of the same network to compute too, though unused."),
    ] = None,
) -> None:
    """Extract the features of CORPUS under BACKBONE into cache/CORPUS/BACKBONE.

    Other entries of the same network (by layer, pooling or stored precision) that some model of
    params.yaml uses are computed in the same pass, into the work store.
    """
    params = read_params(Path("params.yaml"))
    if only and also:
        raise ParamsError(f"--only and --with {also[0]}: given both; expected one of them")
    siblings = [] if only else siblings_of(params, backbone, also or ())
    entry, transcripts = params.backbone(backbone), params.transcripts(corpus, backbone)
    folder = Path("data", corpus, "utterances")
    manifest = Manifest.read(folder)
    if entry.reads == "audio":
        manifest = with_audio(manifest, folder)
    manifest = as_read(manifest, entry, transcripts)
    out = Path("cache", corpus, backbone)
    options = Options(
        devices=devices(device),
        batch_seconds=checked(batch_seconds, NotNegative | None, "--batch-seconds"),
        workers=workers,
        engine=engine,
        announce=lambda forecast: typer.echo(f"{out}: {forecast.line()}"),
        siblings=tuple(siblings),
        note=lambda line: typer.echo(f"{out}: {line}"),
        part=None if part is None else _part(part),
    )
    start = time.monotonic()
    done = extract(manifest, entry, out, store=store_root(), options=options)
    if transcripts is not None and part is None:
        write_words(out, manifest)
    _report(done, out if part is None else Path(f"{out}, part {part}"), time.monotonic() - start)
    if strict and done.rejected:
        raise CacheError(
            f"{len(done.rejected)} utterances were rejected and --strict was given; see "
            f"{out / 'rejected.csv'}"
        )


def _part(given: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", given)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ParamsError(f"--part: given {given!r}; expected K/N with K from 1 to N, such as 1/8")
    return int(match[1]) - 1, int(match[2])


def _report(done: Extraction, out: Path, seconds: float) -> None:
    line = (
        f"{out}: {done.computed} utterances computed, {done.copied} copied, {done.linked} shards "
        f"reused, {len(done.rejected)} rejected, {len(done.noticed)} noticed, {seconds:.1f} s"
    )
    if done.seconds:
        line += f" ({done.seconds / seconds:.1f} seconds of audio a second)"
    typer.echo(line)
    reasons = count_reasons(done.rejected.values())
    list_utterances("rejected", done.rejected, reasons)
    most, count = next(iter(reasons.items()), ("", 0))
    if count * 2 > done.utterances > 0:
        part = f"{count} of {done.utterances} utterances"
        typer.echo(f"warning: {part} were rejected for one reason: {most}", err=True)
    if done.failed > 1 and not done.computed:
        typer.echo(
            f"warning: none of the {done.failed} utterances that were tried now could be used; the "
            "features in the cache come from earlier runs",
            err=True,
        )
    list_utterances("noticed", done.noticed, count_reasons(done.noticed.values()))


if __name__ == "__main__":
    run(main)
