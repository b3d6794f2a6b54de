"""`heronry compare`: compare runs with paired tests, and print or write the result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from features.errors import ParamsError
from features.files.writing import replacing
from pipeline.compare.comparison import Comparison, Settings, compare_runs
from pipeline.compare.page import as_html, as_text, sections


def compare(runs: list[str], settings: Settings, *, as_object: bool, html: Path | None) -> None:
    """Compare runs on the test utterances that all of them predicted, with paired tests."""
    if len(runs) < 2:
        raise ParamsError(f"compare: given only {runs[0]!r}; expected two or more runs")
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
