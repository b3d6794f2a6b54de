"""`heronry show`: print the scores of the last report."""

from __future__ import annotations

from pathlib import Path

import typer

from pipeline.report.metrics_json import headline, read_all


def show() -> None:
    """Print the headline table of the last report, and the path of its page."""
    typer.echo(headline(read_all(Path("reports"))))
    typer.echo(f"report: {Path('reports', 'index.html').resolve()}")
