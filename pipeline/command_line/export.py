"""`heronry export`: its arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.process.interrupts import importing
from pipeline.command_line.completion import RunFolder


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    *,
    seed: Annotated[
        int | None,
        typer.Option(metavar="K", min=0, help="Only models of this seed. Default: all."),
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(metavar="J", min=0, help="Only models of this fold. Default: all."),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also write each fusion as an ONNX program.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Upload the folder to this repository of a hub."),
    ] = None,
    i_may: Annotated[
        bool,
        typer.Option(
            "--i-may",
            help="Upload what a corpus's licence does not let pass on: you have the permission.",
        ),
    ] = False,
) -> None:
    """Write a run as a folder that loads anywhere: model card, weights, programs.

    `pipeline.load_run("FOLDER").predict(["a.wav"], texts=["..."])` predicts with it, without the
    project. Weights of backbones that were not tuned stay where their checkpoint is.
    """
    with importing():
        from pipeline.commands.export import Asked
        from pipeline.commands.export import export as command
    command(Asked(run, out, seed, fold, onnx, push, i_may))
