"""Trained models beside the linear probes of their slots, as one table of docs/results.md.

    python -m benchmarks.beside_probes runs/cached/ravdess/speech runs/cached/ravdess/concat ...

Run it in a project that has trained them (`python -m stages.train CORPUS MODEL`, here with
`seeds: 5`). Scores, intervals and differences are those of the report: of the test rows of all
folds, means over seeds, 95 % over speakers or dialogues, the difference paired.
"""

from __future__ import annotations

from pathlib import Path

import typer

from features.files.records import read_json
from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.report.evaluate import evaluate

SHOWN = "uar"


def main(runs: list[Path]) -> None:
    """Print a Markdown row for each model and slot."""
    typer.echo("| model | UAR | sd | probe | UAR | model minus probe |\n|---|---|---|---|---|---|")
    for run in runs:
        corpus = read_json(run / "run.json")["corpus"]
        report = evaluate(run, Path("data", corpus, "labels"))
        own = report.summaries[SHOWN]
        for number, probe in enumerate(report.probes):
            gain, slot = probe.gains[SHOWN], f"{probe.slot}: {_backbone(run, probe.slot)}"
            model = [f"`{run.name}`", _score(own.value, own.interval), f"{own.sd or 0:.3f}"]
            first = model if number == 0 else ["", "", ""]
            scored = _score(probe.whole.scores[SHOWN], probe.whole.intervals.get(SHOWN))
            row = [*first, slot, scored, _score(gain.value, gain.interval, "+.3f")]
            typer.echo(f"| {' | '.join(row)} |")


def _backbone(run: Path, slot: str) -> str:
    return str(read_json(run / "run.json")["slots"][slot]["backbone"])


def _score(value: float, interval: ConfidenceInterval | None, form: str = ".3f") -> str:
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


if __name__ == "__main__":
    typer.run(main)
