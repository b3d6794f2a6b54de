"""`heronry join`: join runs of one fold each into one table, and score them together.

Where every fold has its own backbone, such as an encoder that was tuned on its training split, each
fold is an experiment of its own (docs/finetuning.md, One tuned encoder a fold).

Shapes: S seeds, I test rows, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import typer

from features.errors import ParamsError, RunError
from features.files.csv_text import write_sheet
from pipeline.compare.sources import PredictedRun, read_run
from pipeline.metrics.classes import confusion, scores
from pipeline.runs.layout import PREDICTIONS


def join(runs: list[str], *, out: Path) -> None:
    """Join the test predictions of single folds into one table, and score them together.

    The fold of each run is its position in the list. `heronry compare` takes the table.
    """
    if len(runs) < 2:
        raise ParamsError(f"join: given only {runs[0]!r}; expected the runs of two or more folds")
    found = [read_run(name) for name in runs]
    check_folds(found)
    out.mkdir(parents=True, exist_ok=True)
    header = (*PREDICTIONS, *(f"p_{name}" for name in found[0].classes))
    write_sheet(out / "predictions.csv", header, rows_of(found))
    typer.echo("\n".join([*summary(found), str(out / "predictions.csv")]))


def check_folds(runs: Sequence[PredictedRun]) -> None:
    """Refuse runs that cannot be the folds of one experiment.

    Raises:
        RunError: If a run learns more than classes, classes or seeds differ, a run has several
            folds, or lacks rows, or an utterance is tested in two of them.
    """
    tested: dict[str, str] = {}
    for run in runs:
        if run.targets.attributes or run.targets.shares is not None:
            raise RunError(
                f"{run.name} learns votes or attributes; expected runs that learn classes alone: "
                "train all folds in one run, whose report pools them"
            )
        same = (run.classes, run.seeds) == (runs[0].classes, runs[0].seeds)
        if not same:
            raise RunError(
                f"{run.name} has the classes {list(run.classes)} and seeds {list(run.seeds)}; "
                f"expected {list(runs[0].classes)} and {list(runs[0].seeds)} as {runs[0].name}"
            )
        folds = sorted({fold for fold, _ in run.items})
        if len(folds) > 1 or run.incomplete:
            raise RunError(
                f"{run.name} has folds {folds} and {len(run.incomplete)} test rows that some seeds "
                "lack; expected one whole fold: train it with `fold` of its corpus set"
            )
        for _, id in run.items:
            if id in tested:
                raise RunError(
                    f"{id!r} is tested in {tested[id]} and in {run.name}; expected each utterance "
                    "in one fold: give each run another `fold`"
                )
            tested[id] = run.name


def rows_of(runs: Sequence[PredictedRun]) -> Iterator[tuple[object, ...]]:
    """Rows of predictions.csv, of the test split alone, fold by fold."""
    for fold, run in enumerate(runs):
        for number, seed in enumerate(run.seeds):
            for index, item in enumerate(run.items.values()):
                yield (
                    *(item.id, item.speaker, item.dialogue or "", "test", fold, seed, item.label),
                    # Behind the classes: -1, none.
                    (*run.classes, "")[run.predictions[number, index]],
                    *(
                        "" if np.isnan(p) else repr(float(p))
                        for p in run.probabilities[number, index]
                    ),
                )


def summary(runs: Sequence[PredictedRun]) -> Iterator[str]:
    """A line for each metric: all folds pooled, and mean over folds; both averaged over seeds."""
    abstains = any(bool((run.predictions < 0).any()) for run in runs)
    each = np.array([_matrices(run, abstains=abstains) for run in runs])  # [F, S, K, K]
    pooled, single = scores(each.sum(0)), scores(each)
    total = sum(len(run.items) for run in runs)
    yield f"{len(runs)} folds, {len(runs[0].seeds)} seeds, {total} test utterances"
    for name, values in pooled.items():
        folds = single[name].mean(1)
        yield (
            f"{name:18} {values.mean():.4f} pooled, mean over folds {folds.mean():.4f}, "
            f"sd {folds.std(ddof=1):.4f}"
        )


def _matrices(run: PredictedRun, *, abstains: bool) -> list[np.ndarray]:
    labels = [run.classes.index(str(item.label)) for item in run.items.values()]
    size = len(run.classes)
    return [confusion(labels, guess, size, abstains=abstains) for guess in run.predictions]
