"""`heronry cache`: list, verify, prune, export and import features (docs/sharing.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from features.process.interrupts import importing
from pipeline.command_line.completion import backbones, caches, corpora

app = typer.Typer(no_args_is_help=True, help="List, verify, prune, export and import features.")
_CACHES = "Folders of features, such as cache/demo/minilm. Default: all of cache/."
_CORPUS = typer.Argument(
    metavar="CORPUS", help="Entry of `corpora`.", autocompletion=corpora, show_default=False
)


@app.command("list", epilog="Example: heronry cache list --json")
def list_caches(
    *, as_object: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False
) -> None:
    """List the caches with size, utterances and the models that need them, and the work store."""
    with importing():
        from pipeline.commands.cache import list_caches as command
    command(as_object=as_object)


@app.command(epilog="Example: heronry cache verify cache/demo/minilm")
def verify(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help=_CACHES, autocompletion=caches),
    ] = None,
) -> None:
    """Read caches completely, as `doctor` does, without repair; exit status 1 if any is bad."""
    with importing():
        from pipeline.commands.doctor import doctor as command
    command(folders)


@app.command(epilog="Example: heronry cache prune --keep-days 30 --yes")
def prune(
    *,
    keep_days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Keep what was used within so many days.")
    ] = None,
    not_in_params: Annotated[
        bool, typer.Option("--not-in-params", help="Keep what params.yaml would use.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; else only list what would be deleted.")
    ] = False,
) -> None:
    """Remove unused entries of the work store; caches and DVC's files stay."""
    with importing():
        from pipeline.commands.cache import prune as command
    command(keep_days=keep_days, not_in_params=not_in_params, yes=yes)


@app.command("export", epilog="Example: heronry cache export demo minilm out --to arrow")
def export_cache(
    corpus: Annotated[str, _CORPUS],
    backbone: Annotated[
        str,
        typer.Argument(metavar="BACKBONE", help="Entry of `backbones`.", autocompletion=backbones),
    ],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    *,
    to: Annotated[
        Literal["npy", "safetensors", "arrow"], typer.Option(help="File format.")
    ] = "npy",
) -> None:
    """Write the features of CORPUS under BACKBONE for other programs."""
    with importing():
        from pipeline.commands.cache import export_cache as command
    command(corpus, backbone, out, to=to)


@app.command(
    "import", epilog="Example: heronry cache import demo wavlm_old old_features --hop-seconds 0.02"
)
def import_arrays(
    corpus: Annotated[str, _CORPUS],
    backbone: Annotated[
        str, typer.Argument(metavar="BACKBONE", help="Name of the new entry of `backbones`.")
    ],
    source: Annotated[Path, typer.Argument(metavar="FROM", help="Folder, or file of arrays.")],
    *,
    reads: Annotated[
        Literal["audio", "text"] | None, typer.Option(help="What the features were computed from.")
    ] = None,
    hop_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time between two frames.")
    ] = None,
    bins: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=32_767, help="Arrays are integers below this."),
    ] = None,
    layers: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Number of hidden states in a row.")
    ] = 1,
) -> None:
    """Check arrays made elsewhere against CORPUS, write shards, and print their params entry."""
    with importing():
        from pipeline.commands.cache import import_arrays as command
    command(
        corpus, backbone, source, reads=reads, hop_seconds=hop_seconds, bins=bins, layers=layers
    )
