"""`python -m stages.evaluate REGIME CORPUS FUSION`: trained models' predictions to reports/."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from pipeline.evaluation.labels import check_named
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import headline
from stages._run import run


def main(regime: str, corpus: str, fusion: str) -> None:
    """Score runs/REGIME/CORPUS/FUSION on its test split and write reports/."""
    run, labels = Path("runs", regime, corpus, fusion), Path("data", corpus, "labels")
    report = evaluate(run, labels)
    check_named(report.run, regime=regime, corpus=corpus, fusion=fusion)
    # DVC sets it for the stages of an experiment.
    path = write_report(report, Path("reports"), experiment=os.environ.get("DVC_EXP_NAME"))
    typer.echo(f"{fusion} on {corpus} ({regime})")
    typer.echo(headline(report.metrics))
    typer.echo(str(path))


if __name__ == "__main__":
    run(main)
