"""`heronry segment`: its arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from features.process.interrupts import importing

_ANNOTATIONS = "file, or folder of them, in place of voice activity."
_BY_VOICE = "Default: annotations as they are; by voice activity"


def segment(  # noqa: PLR0913  each is an option
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="RECORDING", help="Files, folders of them, or patterns."),
    ],
    *,
    file: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="Table to write, in a folder above all recordings."
        ),
    ],
    rttm: Annotated[Path | None, typer.Option(metavar="PATH", help=f"RTTM {_ANNOTATIONS}")] = None,
    textgrid: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help=f"TextGrid {_ANNOTATIONS} Each is named as its recording."
        ),
    ] = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help=f"CSV {_ANNOTATIONS} Columns audio, start, stop, perhaps speaker, text, label.",
        ),
    ] = None,
    tiers: Annotated[
        list[str] | None,
        typer.Option(
            "--tier", metavar="NAME", help="Tier of TextGrids; may be repeated. Default: all."
        ),
    ] = None,
    labels: Annotated[
        Literal["text", "speaker"],
        typer.Option(help="What the labels of TextGrids are; of `text` the tier is the speaker."),
    ] = "text",
    ignored: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="LABEL",
            help="Label of TextGrids that is no speech, besides an empty one; may be repeated.",
        ),
    ] = None,
    shortest: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=60.0,
            help=f"Leave out what is shorter. {_BY_VOICE} 0.25.",
        ),
    ] = None,
    longest: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=3600.0,
            help="Divide what is longer at its quietest pause; 0: never. Default: 30.",
        ),
    ] = None,
    pause: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=60.0,
            help=f"Join what one speaker says with a shorter pause between. {_BY_VOICE} 0.5.",
        ),
    ] = None,
    pad: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=10.0,
            help=f"Sound to keep before and after, up to the middle of a gap. {_BY_VOICE} 0.1.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P", min=0.01, max=0.99, help="Least probability of speech. Default: 0.5."
        ),
    ] = None,
    speakers: Annotated[
        Literal["given", "local", "recording", "folder"],
        typer.Option(
            help="Whether a name is one person everywhere (given), or in its recording alone "
            "(local); or that each recording, or each folder, is one person."
        ),
    ] = "given",
) -> None:
    """Write a table of the utterances in recordings: by voice activity, or from annotations.

    The table is a manifest: a corpus once it has labels, and what `predict` takes.
    """
    with importing():
        from features.segmentation.textgrid import Choice
        from pipeline.commands.segment import Asked
        from pipeline.commands.segment import segment as command
    asked = Asked(
        rttm=rttm,
        textgrid=textgrid,
        segments=segments,
        choice=Choice(tuple(tiers or ()), labels == "speaker", tuple(ignored or ())),
        shortest=shortest,
        longest=longest,
        pause=pause,
        pad=pad,
        threshold=threshold,
        speakers=speakers,
    )
    command(recordings, asked, out=file)
