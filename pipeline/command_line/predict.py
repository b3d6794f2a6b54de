"""`heronry predict`: its arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from features.process.interrupts import importing
from pipeline.command_line.completion import OneFold, OneSeed, RunFolder

WINDOW_SECONDS = 30.0  # of `pipeline.predict.rows`, which is not imported to print a default
_AUDIO = (
    "Files, folders (all audio below them), patterns such as 'calls/*.wav'; or one table (.csv, "
    ".tsv, .jsonl, .parquet) with the columns of a manifest."
)


def predict(  # noqa: PLR0913  each is an option
    run: RunFolder,
    audio: Annotated[
        list[str] | None, typer.Argument(metavar="AUDIO...", help=_AUDIO, show_default=False)
    ] = None,
    *,
    text: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="What is said in the only recording, or without one."),
    ] = None,
    transcripts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table with the words: columns `id` (or `audio`) and `text`."
        ),
    ] = None,
    transcribe: Annotated[
        bool,
        typer.Option(
            "--transcribe",
            help="Recognise the words of recordings that have none (section `transcribe`).",
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows as CSV.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", metavar="FILE", help="Write them as JSON Lines.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write them as Parquet.")
    ] = None,
    without_each: Annotated[
        bool,
        typer.Option(
            "--without-each",
            help="Also show the answer without each slot. Files hold it in any case.",
        ),
    ] = False,
    seed: OneSeed = None,
    fold: OneFold = None,
    window: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Longer recordings without known words are divided evenly, a row a piece; 0: not.",
        ),
    ] = WINDOW_SECONDS,
    by: Annotated[
        Literal["speaker", "dialogue", "audio"] | None,
        typer.Option(
            help="Print means over the utterances of each; files hold the rows all the same."
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Such as cpu, cuda or 0,1. Default: HERONRY_DEVICE, or the best."
        ),
    ] = None,
) -> None:
    """Predict new recordings with a trained run: a table, or files of any length of list.

    Backbones compute live, and must be those that the run was trained on. Exit status 1 if a row
    failed. A command that was killed goes on where it was.
    """
    with importing():
        from pipeline.commands.predict import Asked, Files
        from pipeline.commands.predict import predict as command
    asked = Asked(
        run, tuple(audio or ()), text, transcripts, transcribe, seed, fold, window, devices
    )
    command(asked, Files(csv, jsonl, parquet, without_each, by))
