"""`python -m stages.extract CORPUS BACKBONE`: a corpus through a backbone, into cache shards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from features.errors import CacheError
from features.extraction import extract
from features.locations import corpus_root, device, store_root
from features.manifest import Manifest
from pipeline.params import read_params
from stages._run import run


def main(
    corpus: str,
    backbone: str,
    *,
    strict: Annotated[bool, typer.Option(help="Fail if an utterance is rejected.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Utterances a batch.")] = None,
) -> None:
    """Extract the features of CORPUS under BACKBONE into cache/CORPUS/BACKBONE."""
    entry = read_params(Path("params.yaml")).backbone(backbone)
    folder = Path("data", corpus, "utterances")
    manifest = Manifest.read(folder)
    if any(utterance.audio is not None for utterance in manifest) and entry.kind != "none":
        root = folder.resolve() if manifest.generated else corpus_root(corpus)
        manifest = manifest.located(root)
    out = Path("cache", corpus, backbone)
    start = time.monotonic()
    tell = extract(manifest, entry, out, store=store_root(), device=device(), batch_size=batch_size)
    seconds = time.monotonic() - start
    line = (
        f"{out}: {tell.computed} utterances computed, {tell.copied} copied, {tell.linked} shards "
        f"reused, {len(tell.rejected)} rejected, {seconds:.1f} s"
    )
    if tell.seconds:
        line += f" ({tell.seconds / seconds:.1f} seconds of audio a second)"
    typer.echo(line)
    for id, reason in list(tell.rejected.items())[:20]:
        typer.echo(f"  rejected {id}: {reason}", err=True)
    if strict and tell.rejected:
        raise CacheError(
            f"{len(tell.rejected)} utterances were rejected and --strict was given; see "
            f"{out / 'rejected.csv'}"
        )


if __name__ == "__main__":
    run(main)
