"""`python -m pipeline compare`: compare runs with paired tests, and print or write the result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from features.errors import ParamsError
from features.files.writing import replacing
from pipeline.compare.comparison import Comparison, Settings, compare_runs
from pipeline.compare.flips import SHOWN
from pipeline.compare.page import as_html, as_text, sections
from pipeline.compare.rows import UNIT
from pipeline.compare.significance import LEAST_PERMUTATIONS, PERMUTATIONS

_RUNS = "A run folder, predictions.csv or .parquet, a DVC experiment or revision, or `workspace`."


def compare(  # noqa: PLR0913  each is an option
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help=_RUNS)],
    *,
    all_pairs: Annotated[
        bool, typer.Option(help="Every run with every other, not just the first.")
    ] = False,
    flips: Annotated[
        int, typer.Option(min=0, help="Changed utterances to list, for each direction.")
    ] = (SHOWN),
    permutations: Annotated[int, typer.Option(min=LEAST_PERMUTATIONS)] = PERMUTATIONS,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the permutations.")] = 0,
    as_object: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
    unit: Annotated[str | None, typer.Option(help=UNIT)] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.")] = None,
) -> None:
    """Compare runs on the test utterances that all of them predicted, with paired tests."""
    if len(runs) < 2:
        raise ParamsError(f"compare: given only {runs[0]!r}; expected two or more runs")
    settings = Settings(
        all_pairs=all_pairs, flips=flips, permutations=permutations, seed=seed, unit=unit
    )
    found = compare_runs(runs, settings)
    if html is not None:
        write_page(html, found)
    typer.echo(as_json(found) if as_object else as_text(found))


def as_json(found: Comparison) -> str:
    """All records, unrounded; `about` holds the notes of each section."""
    about = {part.title: part.notes for part in sections(found)}
    return json.dumps({"about": about, **asdict(found)}, indent=2, ensure_ascii=False)


def write_page(path: Path, found: Comparison) -> None:
    """Write the comparison as HTML.

    Raises:
        ParamsError: If that cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(as_html(found), encoding="utf-8")
    except OSError as error:
        raise ParamsError(
            f"--html {path}: cannot write it ({error.strerror}); expected the path of a file "
            "that may be written"
        ) from error
