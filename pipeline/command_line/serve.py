"""`heronry serve`: its arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.process.interrupts import importing, say
from pipeline.command_line.completion import OneFold, OneSeed, run_folders


def serve(  # noqa: PLR0913  each is an option
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, the folder of one seed and fold in it, or an exported folder.",
            autocompletion=run_folders,
        ),
    ],
    *,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on. With one of a network, a token is asked for.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0: any that is free.")
    ] = 8000,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="HOST",
            help="Host name that leads here; may be repeated. With one, a token is asked for.",
        ),
    ] = None,
    transcribe: Annotated[
        bool,
        typer.Option(
            "--transcribe",
            help="Offer to recognise the words of a clip (section `transcribe`).",
        ),
    ] = False,
    seed: OneSeed = None,
    fold: OneFold = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Such as cpu or cuda. Default: HERONRY_DEVICE, or best."),
    ] = None,
    max_megabytes: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="Largest clip.")
    ] = 32.0,
    max_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Longest clip.")
    ] = 300.0,
    max_waiting: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests at a time; more are told to wait.")
    ] = 16,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Let a backbone run code of its checkpoint's repository."
        ),
    ] = False,
) -> None:
    """Serve a trained run as a web page: record or choose a clip, and see the answer.

    Only this machine can connect, unless --host names another address, or --name a host that leads
    here; then a token is asked for, which is printed, or HERONRY_TOKEN. Ctrl-C ends it.
    """
    say("the batch under way is finished; a second signal ends the process at once")
    with importing():
        from pipeline.commands.serve import Asked
        from pipeline.commands.serve import serve as command
    command(
        Asked(
            run,
            host,
            port,
            tuple(names or ()),
            transcribe,
            seed,
            fold,
            device,
            max_megabytes,
            max_seconds,
            max_waiting,
            trust_remote_code,
        )
    )
