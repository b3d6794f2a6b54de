"""`heronry compare`: compare runs with paired tests, and print or write the result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from features.errors import ParamsError
from features.files.writing import replacing
from pipeline.compare.comparison import Settings
from pipeline.compare.kinds import Comparisons, compare_any
from pipeline.compare.page import Section, as_html, as_text, sections
from pipeline.compare.target_sections import target_sections


def compare(runs: list[str], settings: Settings, *, as_object: bool, html: Path | None) -> None:
    """Compare runs on the test utterances that all of them predicted, with paired tests."""
    if len(runs) < 2:
        raise ParamsError(f"compare: given only {runs[0]!r}; expected two or more runs")
    found = compare_any(runs, settings)
    if html is not None:
        write_page(html, found)
    typer.echo(as_json(found) if as_object else as_text(_sections(found)))


def as_json(found: Comparisons) -> str:
    """All records, unrounded; `about` holds the notes of each section.

    The keys are those of the comparison by classes, where there is one; that by attributes and
    votes is `targets`.
    """
    content: dict[str, object] = {part.title: part.notes for part in _sections(found)}
    content = {"about": content} | (asdict(found.classes) if found.classes else {})
    content |= {"targets": asdict(found.targets)} if found.targets else {}
    return json.dumps(content, indent=2, ensure_ascii=False)


def _sections(found: Comparisons) -> list[Section]:
    parts = sections(found.classes) if found.classes else []
    return parts + (target_sections(found.targets) if found.targets else [])


def write_page(path: Path, found: Comparisons) -> None:
    """Write the comparison as HTML.

    Raises:
        ParamsError: If that cannot be written.
    """
    try:
        with replacing(path) as temporary:
            runs = (found.classes or found.targets).runs  # type: ignore[union-attr]
            text = as_html([run.name for run in runs], _sections(found))
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ParamsError(
            f"--html {path}: cannot write it ({error.strerror}); expected the path of a file "
            "that may be written"
        ) from error
