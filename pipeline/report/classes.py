"""The sections about training curves, confusion, single classes, and single seeds and folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from features.corpus.label_checks import lacking_classes, lacking_lines
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.evaluation.statistics import Scores
from pipeline.html.format import NAMES, NONE, number, span, spread
from pipeline.html.markup import Markup, element, folded, quiet, table
from pipeline.html.plots import Curve, curves_svg, matrix_svg
from pipeline.html.svg import SERIES
from pipeline.metrics import MONITORS, Floats
from pipeline.report.records import Report

_WIDE = 10  # classes: more of them get one matrix a row
_MANY_JOBS = 20  # more of them are folded away


def curves_of(run: RunFolder) -> Iterator[Markup]:
    """Loss and a validation metric over epochs, a line for each trained model."""
    if not any(job.history.rows for job in run.jobs):
        yield quiet("This model is not trained in epochs.")
        return
    monitor = str(run.train.get("monitor"))
    shown = monitor if monitor in MONITORS else "uar"
    panels = {"train_loss": "Training loss", "valid_loss": "Validation loss"}
    panels[f"valid_{shown}"] = f"Validation {NAMES[shown]}"
    yield element("p", *_key(run), style="quiet key")
    plots = []
    for name, title in panels.items():
        lines = [_curve(run, job, name) for job in run.jobs]
        told = f"{title} over epochs, {len(lines)} trained models, {_ends(lines)}"
        plots.append(element("div", Markup(curves_svg(title, lines, told))))
    yield element("div", *plots, style="trio")
    if monitor == shown:
        yield quiet(f"The epoch with the best validation {NAMES[shown]} is monitored and kept.")


def _ends(lines: Sequence[Curve]) -> str:
    """What a curve shows, in words."""
    starts = [line.values[0] for line in lines if len(line.values)]
    kept = np.concatenate([line.values[line.kept] for line in lines])
    return f"on average {np.mean(starts):.3f} in the first epoch, {np.mean(kept):.3f} in those kept"


def _key(run: RunFolder) -> Iterator[Markup]:
    if len(run.seeds) <= SERIES:
        for index, seed in enumerate(run.seeds):
            dot = Markup(f'<b style="color:var(--series-{index})" aria-hidden="true">━</b> ')
            yield element("span", dot, f"seed {seed}")
    yield element("span", f"one line a {'seed and fold' if run.folds > 1 else 'seed'}")
    yield element("span", "● the epoch that was kept")


def _curve(run: RunFolder, job: JobResult, name: str) -> Curve:
    table = job.history
    kept = table.numbers("best") == 1
    return Curve(table.numbers("epoch"), table.numbers(name), kept, run.seeds.index(job.seed))


def confusion_of(report: Report) -> Iterator[Markup]:
    """Counts and shares of each true class, as plots and as tables."""
    counts, classes = report.confusions.sum(0), report.run.classes
    over = f", summed over {len(report.run.seeds)} seeds" if len(report.run.seeds) > 1 else ""
    texts = [[f"{share:.2f}" for share in row] for row in report.shares]
    plain = [[str(count) for count in row] for row in counts]
    yield element(
        "div",
        _matrix(f"Counts{over}", counts / max(counts.max(), 1), plain, classes),
        _matrix("Share of each true class", report.shares, texts, classes),
        style="pair" if len(classes) <= _WIDE else "stack",
    )
    both = [
        [name, *(f"{count} ({share})" for count, share in zip(*rows, strict=True))]
        for name, *rows in zip(classes, plain, texts, strict=True)
    ]
    header = ["True class", *(f"as {name}" for name in classes)]
    caption = "How often each true class was predicted as which, and as what share of it"
    yield folded("Confusion as a table", table(header, both, caption=caption))


def _matrix(
    title: str, depths: Floats, cells: Sequence[Sequence[str]], classes: Sequence[str]
) -> Markup:
    told = f"Confusion matrix: {title}; the table below has the numbers"
    plot = Markup(matrix_svg(depths, cells, classes, told))
    return element("div", element("h3", title), element("div", plot, style="scroll", tabindex="0"))


def classes_of(report: Report) -> Iterator[Markup]:
    """Precision, recall, F1 and support of each class, and which splits lack one."""
    header = ["Class", "Precision", "Recall", "F1", "95 % interval of F1"]
    yield table(
        [*header, "One-vs-rest accuracy", "Support"],
        [
            [
                found.name,
                *map(number, (found.precision, found.recall, found.f1)),
                span(found.f1_interval),
                number(found.ovr_accuracy),
                f"{found.support:,}",
            ]
            for found in report.classes
        ],
        caption="Means over seeds; support: test utterances of the class",
    )
    absent = [found.name for found in report.classes if not found.support]
    if absent:
        yield element(
            "p",
            f"Absent from the test labels: {', '.join(absent)}. UAR and macro F1 leave such a "
            "class out; if it was predicted all the same, it counts as 0 in macro F1.",
            style="note",
        )
    lacking = lacking_lines(lacking_classes(report.card.get("counts") or []))
    if lacking:
        yield element("ul", *(element("li", line) for line in lacking), style="note")


def jobs_of(report: Report) -> Iterator[Markup]:
    """Every seed, every trained model, and mean and standard deviation over seeds."""
    run = report.run
    pooled = {f"{each.seed}": each.scores for each in report.seeds}
    utterances = report.seeds[0].utterances
    how = "folds pooled" if run.folds > 1 else "the test split"
    yield _seeds(pooled, f"Seeds, {how}: {utterances:,} utterances each")
    averaged = {f"{e.seed}": e.fold_mean for e in report.seeds if e.fold_mean is not None}
    if averaged:
        yield _seeds(averaged, f"Seeds, mean over the {run.folds} folds of each fold's score")
    if len(run.seeds) > 1:
        yield quiet("SD: standard deviation of the seeds' scores, dividing by their number less 1.")
    if run.folds > 1 or any(job.temperature is not None for job in report.jobs):
        yield _each_job(report)


def _seeds(found: Mapping[str, Scores], caption: str) -> Markup:
    rows: list[list[object]] = [
        [seed, *(number(of[name]) for name in NAMES)] for seed, of in found.items()
    ]
    if len(found) > 1:
        columns = [np.array([of[name] for of in found.values()]) for name in NAMES]
        spreads = (spread(float(c.mean()), float(c.std(ddof=1))) for c in columns)
        rows.append([element("b", "Mean ± SD"), *spreads])
    return table(["Seed", *NAMES.values()], rows, caption=caption)


def _each_job(report: Report) -> Markup:
    header = ["Seed", "Fold", *NAMES.values(), "Temperature", "Utterances"]
    rows = [
        [
            *(f"{job.seed}", f"{job.fold}"),
            *(number(job.scores[name]) for name in NAMES),
            NONE if job.temperature is None else f"{job.temperature:.2f}",
            f"{job.utterances:,}",
        ]
        for job in report.jobs
    ]
    whole = table(header, rows, caption="Seeds and folds: one row a trained model")
    return whole if len(rows) <= _MANY_JOBS else folded(f"All {len(rows)} trained models", whole)
