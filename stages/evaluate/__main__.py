"""`python -m stages.evaluate REGIME CORPUS FUSION`: trained models' predictions to reports/."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import typer

from features.arguments import refuse
from features.files.records import read_json
from features.files.yaml_text import read_params_file
from pipeline.evaluation.labels import check_named
from pipeline.report.evaluate import evaluate_any, write_report
from pipeline.report.metrics_json import METRICS, read_metrics, split_of
from pipeline.tracking import REPORT, Tracked, Trackers, tracker_problems
from stages._run import run


def main(regime: str, corpus: str, fusion: str) -> None:
    """Score runs/REGIME/CORPUS/FUSION on its test split and write reports/."""
    run, labels = Path("runs", regime, corpus, fusion), Path("data", corpus, "labels")
    trackers = _trackers()
    report = evaluate_any(run, labels)
    check_named(report.run, regime=regime, corpus=corpus, fusion=fusion)
    # DVC sets it for the stages of an experiment.
    path = write_report(report, Path("reports"), experiment=os.environ.get("DVC_EXP_NAME"))
    _track(trackers, run, path)
    typer.echo(f"{path}: {fusion} on {corpus} ({regime}); `heronry show` prints its scores")


def _trackers() -> list[str]:
    """The setting `trackers`; none without params.yaml, since a run can be scored anywhere."""
    params = Path("params.yaml")
    names = read_params_file(params).get("trackers", []) if params.exists() else []
    refuse(tracker_problems(names))
    return list(names)


def _track(names: list[str], run: Path, page: Path) -> None:
    """Show settings, headline and page of the report in experiment trackers."""
    if not names:
        return
    read = read_metrics(page.with_name(METRICS))
    numbers = {_named(name): value for name, value in read.items() if not isinstance(value, str)}
    tracked = Tracked.of(names, read_json(run / "run.json"), REPORT)
    with Trackers(tracked, partial(typer.echo, err=True)) as trackers:
        trackers.log(0, numbers)
        trackers.attach(page)


def _named(name: str) -> str:
    """A number's name after its split, as trainings name theirs: `valid/macro_f1`, `test/uar`."""
    split = split_of(name)
    return f"{split}/{name.removeprefix('valid_')}" if split else name


if __name__ == "__main__":
    run(main)
