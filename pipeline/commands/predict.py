"""`heronry predict`: predict new recordings with a trained run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from features.arguments import problems, refuse
from features.errors import ParamsError
from features.process.terminal import progress
from features.settings.locations import devices as devices_of
from features.transcription.settings import Transcription
from pipeline.predict.groups import Key, means_table
from pipeline.predict.output import (
    check_writable,
    table,
    write_csv,
    write_jsonl,
    write_parquet,
)
from pipeline.predict.parts import Machine, compute, divided, steps
from pipeline.predict.recorded import own_section
from pipeline.predict.recordings import (
    Given,
    check_ids,
    given_recordings,
    with_text,
    with_transcripts,
    words_alone,
)
from pipeline.predict.records import Columns, Record, records
from pipeline.predict.rows import SHORTEST_SECONDS, WINDOW_SECONDS, Row, rows_of
from pipeline.predict.trained import TrainedRun, open_run
from pipeline.predict.work import Work

LISTED = 20  # rows that a list of failures quotes


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        run: Run folder, or that of a seed and fold in it.
        audio: Files, folders, patterns, or one table; none: `text` alone is predicted.
        text: Words of the only recording, or without one.
        transcripts: Table with the words of some recordings.
        transcribe: Whether to recognise words where there are none.
        seed: Seed of the models; None: all.
        fold: Fold of the models; None: all.
        window: Seconds of a piece of a long recording at most; 0: none is divided.
        devices: Devices by name; None: the best there is.
    """

    run: Path
    audio: tuple[str, ...]
    text: str | None = None
    transcripts: Path | None = None
    transcribe: bool = False
    seed: int | None = None
    fold: int | None = None
    window: float = WINDOW_SECONDS
    devices: str | None = None


@dataclass(frozen=True)
class Files:
    """Files to write; without any, a table is printed.

    Attributes:
        csv: Rows as CSV.
        jsonl: Rows as JSON Lines.
        parquet: Rows as Parquet.
        without_each: Whether the table shows the answers without each slot; files always hold them.
        by: What to print means by, in place of the table and beside any files; None: nothing.
    """

    csv: Path | None = None
    jsonl: Path | None = None
    parquet: Path | None = None
    without_each: bool = False
    by: Key | None = None

    @property
    def named(self) -> dict[str, Path]:
        """Path by option."""
        every = {"--csv": self.csv, "--jsonl": self.jsonl, "--parquet": self.parquet}
        return {option: path for option, path in every.items() if path is not None}


WRITERS = {"--csv": write_csv, "--jsonl": write_jsonl, "--parquet": write_parquet}


def predict(asked: Asked, files: Files) -> None:
    """Predict recordings, and print or write the rows; exit status 1 if one failed.

    Raises:
        HeronryError: If the run, a table, an option or a backbone is wrong.
    """
    for option, path in files.named.items():
        check_writable(path, option)
    if len(set(files.named.values())) < len(files.named):
        raise ParamsError(f"given one file for {' and '.join(files.named)}; expected one for each")
    run = open_run(asked.run, seed=asked.seed, fold=asked.fold)
    given = _given(asked)
    for note in given.notes:
        typer.echo(f"note: {note}", err=True)
    machine = Machine(
        devices_of(asked.devices), transcription_settings() if asked.transcribe else None
    )
    parts = divided(list(_rows(given, asked, run)), run, machine.devices[0])
    with Work.opened(_facts(run, parts.rows, machine)) as work:
        if len(work):
            every = len(parts.places) * len(run.groups)
            typer.echo(f"resumes: {len(work)} of {every} parts are done", err=True)
        todo, total = compute(run, parts, work, machine), steps(run, parts, work, machine)
        for _ in progress(todo, total=total, what="predict", unit="step"):
            pass
        columns = Columns.of(run, recognised=asked.transcribe)
        failed = _show(files, columns, lambda: records(run, parts, work, columns))
        work.forget()
    typer.echo(_averaged(run), err=True)
    if failed:
        typer.echo(_failures(failed, len(parts.rows)), err=True)
        raise typer.Exit(1)


def _show(
    files: Files, columns: Columns, rows: Callable[[], Iterator[Record]]
) -> list[tuple[str, str]]:
    """Write the files; print means, or a table without files; id and reason of what failed."""
    for option, path in files.named.items():
        WRITERS[option](path, columns, rows())
        typer.echo(f"written: {path}", err=True)
    shown: Iterator[str] = iter(())
    if files.by is not None:
        shown = means_table(columns, rows(), files.by)
    elif not files.named:
        shown = table(columns, rows(), without_each=files.without_each)
    for line in shown:
        typer.echo(line)
    return [(row["id"], row["error"]) for row in rows() if row["error"]]


def _failures(failed: Sequence[tuple[str, str]], total: int) -> str:
    lines = [f"  {id}: {reason}" for id, reason in failed[:LISTED]]
    more = [f"  and {len(failed) - LISTED} more"] if len(failed) > LISTED else []
    what = "row" if total == 1 else "rows"
    head = f"error: {len(failed)} of {total} {what} could not be predicted:"
    return "\n".join([head, *lines, *more])


def _given(asked: Asked) -> Given:
    if not (asked.window == 0 or asked.window >= SHORTEST_SECONDS):
        raise ParamsError(
            f"--window {asked.window:g}: expected 0 (nothing is divided), or at least "
            f"{SHORTEST_SECONDS:g} second: speech of less is no utterance"
        )
    if not asked.audio:
        return words_alone(asked.text)
    given = given_recordings(asked.audio)
    check_ids(given.recordings)
    if asked.text is not None and asked.transcripts is not None:
        raise ParamsError("given --text and --transcripts; expected one of them")
    if asked.text is not None:
        return with_text(given, asked.text)
    return given if asked.transcripts is None else with_transcripts(given, asked.transcripts)


def _rows(given: Given, asked: Asked, run: TrainedRun) -> Iterator[Row]:
    found = rows_of(given, window=asked.window, dialogues=run.unit == "dialogue")
    total = len(given.recordings)
    for some in progress(found, total=total, what="read", unit="recording"):
        yield from some


def transcription_settings() -> Transcription:
    """Settings of params.yaml; the defaults where it has none."""
    given = own_section("transcribe")
    refuse(problems(Transcription, given, "transcribe"))
    return Transcription(**given)


def _facts(run: TrainedRun, rows: Sequence[Row], machine: Machine) -> dict[str, object]:
    """What decides the numbers of a prediction."""
    import torch

    return {
        "run": run.identity,
        "rows": [
            (row.id, row.dialogue, row.turn, row.fault, row.utterance and vars(row.utterance))
            for row in rows
        ],
        "device": torch.device(machine.devices[0]).type,
        "transcription": machine.transcription and vars(machine.transcription),
        "torch": torch.__version__,
    }


def _averaged(run: TrainedRun) -> str:
    """Which models the answers are of, with their temperatures."""
    named = [
        each.name + ("" if each.temperature is None else f" (temperature {each.temperature:.2f})")
        for each in run.models
    ]
    few = ", ".join([*named[:5], *(["..."] if named[5:] else [])])
    return f"{run.path}: {f'mean of {len(named)} models, ' if len(named) > 1 else ''}{few}"
