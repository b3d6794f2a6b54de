"""The report as one HTML page: what was measured, how sure it is, and on what it rests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metrics import MONITORS, Counts, per_class, scores
from pipeline.report_html import Markup, document, element, folded, section, table
from pipeline.report_plots import SERIES, Curve, curves_svg, matrix_svg
from pipeline.report_sources import leak_warning, sources
from pipeline.runs import Job, RunFolder
from pipeline.statistics import DRAWS, FEW_CLUSTERS, Interval

if TYPE_CHECKING:
    from pipeline.evaluation import Report

NAMES = {
    "accuracy": "Accuracy (WA)",
    "uar": "UAR",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
}
_WIDE = 10  # classes: more of them get one matrix a row
_MANY_JOBS = 20  # more of them are folded away
_NONE = "–"


def page(report: Report) -> str:
    """The page; equal reports give equal bytes."""
    run = report.run
    return document(
        f"{run.fusion} on {run.corpus}",
        *_headline(report),
        section("Training curves", *_curves(run)),
        section("Confusion", *_confusion(report)),
        section("Classes", *_classes(report)),
        section("Seeds and folds", *_jobs(report)),
        *sources(run, report.card),
    )


def _headline(report: Report) -> Iterator[Markup]:
    run, metrics, size = report.run, report.metrics, len(report.run.classes)
    yield element("h1", f"{run.fusion} on {run.corpus}")
    yield element(
        "p",
        f"regime {run.regime} · model kind {run.kind} · {size} classes · "
        f"{metrics['utterances']} test utterances of {_many(report.speakers, 'speaker')}"
        f"{f' ({report.left_out} left out)' if report.left_out else ''} · "
        f"{_many(len(run.seeds), 'seed')} · {_many(run.folds, 'fold')}",
        style="quiet",
    )
    if report.card.get("disclaimer"):
        yield element("p", report.card["disclaimer"], style="note")
    if report.card.get("allow_leak"):
        yield leak_warning(report.card)
    yield table(
        ["Test split", "Score", "", "95 % interval", "SD over seeds", "Majority class", "Chance"],
        [_metric_row(report, name) for name in MONITORS],
        style="headline",
    )
    yield element("p", _interval_note(report), style="quiet")
    yield element(
        "p",
        f"One-vs-rest accuracy (ovr_accuracy, LPGNet's metric) is {metrics['ovr_accuracy']:.3f}. "
        "It is not accuracy: with K classes it equals "
        "1\N{NBSP}−\N{NBSP}2\N{NBSP}(1\N{NBSP}−\N{NBSP}accuracy)\N{NBSP}/\N{NBSP}K, so that chance "
        f"already gives {1 - 2 * (1 - 1 / size) / size:.3f} here.",
        style="quiet",
    )


def _metric_row(report: Report, name: str) -> list[object]:
    metrics, interval = report.metrics, report.intervals.get(name)
    majority = metrics[f"majority_{name}"]
    return [
        NAMES[name],
        f"{metrics[name]:.3f}",
        _gauge(metrics[name], interval, majority),
        _range(interval),
        _number(metrics.get(f"{name}_sd")),
        f"{majority:.3f}",
        _number(metrics.get(f"chance_{name}")),
    ]


def _gauge(value: float, interval: Interval | None, majority: float) -> Markup:
    """Score (dot), interval (bar) and majority class (tick) on a line from 0 to 1."""
    x, m = 4 + 168 * value, 4 + 168 * majority
    bar = ""
    if interval:
        low, high = 4 + 168 * interval.low, 4 + 168 * interval.high
        bar = (
            f'<path d="M{low:.1f} 11H{high:.1f}" stroke-width="5" opacity=".45"/>'
            f'<path d="M{low:.1f} 6V16M{high:.1f} 6V16" stroke-width="1.5"/>'
        )
    return Markup(
        '<svg class="gauge" viewBox="0 0 176 22" role="img" aria-label="from 0 to 1">'
        f'<path d="M4 11H172M4 8V14M172 8V14" stroke="var(--faint)"/>'
        f'<g stroke="var(--accent)">{bar}</g>'
        f'<path d="M{m:.1f} 4V18" stroke="var(--quiet)" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="11" r="3" fill="var(--accent)"/></svg>'
    )


def _interval_note(report: Report) -> str:
    pooled = (
        "Score: mean over seeds, the test predictions of all folds pooled (dot). Majority class: "
        "the most frequent training class for every test utterance (tick). "
    )
    if not report.intervals:
        return pooled + "No interval: all test utterances are of one speaker."
    few = (
        f" Only {report.speakers} speakers: the true interval is likely wider."
        if report.speakers < FEW_CLUSTERS
        else ""
    )
    drawn = (
        f"Interval: percentile bootstrap over speakers, {DRAWS} draws (bar); a draw of speakers "
        "without some class lowers macro F1. The spread over seeds is not in it."
    )
    return pooled + drawn + few


def _curves(run: RunFolder) -> Iterator[Markup]:
    if not any(job.history.rows for job in run.jobs):
        yield element("p", "This model is not trained in epochs.", style="quiet")
        return
    monitor = str(run.train.get("monitor"))
    shown = monitor if monitor in MONITORS else "uar"
    title = f"Validation: {NAMES[shown]}" + (", monitored" if monitor == shown else "")
    panels = {"train_loss": "Training loss", "valid_loss": "Validation loss"}
    panels[f"valid_{shown}"] = title
    yield element("p", *_key(run), style="quiet key")
    lines = [
        (label, [_curve(run, job, name) for job in run.jobs]) for name, label in panels.items()
    ]
    yield Markup(curves_svg(lines, "training curves"))


def _key(run: RunFolder) -> Iterator[Markup]:
    if len(run.seeds) <= SERIES:
        for index, seed in enumerate(run.seeds):
            dot = Markup(f'<b style="color:var(--series-{index})">━</b> ')
            yield element("span", dot, f"seed {seed}")
    yield element("span", f"one line a {'seed and fold' if run.folds > 1 else 'seed'}")
    yield element("span", "● the epoch that was kept")


def _curve(run: RunFolder, job: Job, name: str) -> Curve:
    table = job.history
    kept = table.numbers("best") == 1
    return Curve(table.numbers("epoch"), table.numbers(name), kept, run.seeds.index(job.seed))


def _confusion(report: Report) -> Iterator[Markup]:
    counts, classes = report.confusions.sum(0), report.run.classes
    support = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(support, 1)
    over = f", summed over {len(report.run.seeds)} seeds" if len(report.run.seeds) > 1 else ""
    yield element(
        "div",
        _figure(f"Counts{over}", counts / max(counts.max(), 1), counts.tolist(), classes),
        _figure(
            "Share of each true class",
            shares,
            [[f"{share:.2f}" for share in row] for row in shares],
            classes,
        ),
        style="pair" if len(classes) <= _WIDE else "stack",
    )


def _figure(
    title: str, shares: Any, cells: Sequence[Sequence[object]], classes: Sequence[str]
) -> Markup:
    texts = [[str(cell) for cell in row] for row in cells]
    return element("div", element("h3", title), Markup(matrix_svg(shares, texts, classes, title)))


def _classes(report: Report) -> Iterator[Markup]:
    found, classes = per_class(report.confusions), report.run.classes
    columns = [found.precision.mean(0), found.recall.mean(0), found.f1.mean(0)]
    support = found.support[0].astype(int)
    yield table(
        ["Class", "Precision", "Recall", "F1", "95 % interval of F1", "Support"],
        [
            [
                name,
                *(f"{column[k]:.3f}" for column in columns),
                _range(report.intervals.get(report.f1_names[k])),
                support[k],
            ]
            for k, name in enumerate(classes)
        ],
    )
    absent = [name for k, name in enumerate(classes) if not support[k]]
    if absent:
        yield element(
            "p",
            f"Absent from the test labels: {', '.join(absent)}. UAR leaves absent classes out; "
            "macro F1 counts them as 0.",
            style="note",
        )


def _jobs(report: Report) -> Iterator[Markup]:
    run = report.run
    if run.folds > 1:
        yield element("h3", "Seeds, folds pooled")
        names = [str(seed) for seed in run.seeds]
        yield _score_table(["Seed"], [[name] for name in names], report.confusions)
        yield element("h3", "Seeds and folds")
    keys = [[str(job.seed), str(job.fold)] for job in run.jobs]
    each = _score_table(["Seed", "Fold"], keys, report.job_confusions)
    yield each if len(keys) <= _MANY_JOBS else folded(f"All {len(keys)} trained models", each)


def _score_table(head: Sequence[str], keys: Sequence[Sequence[str]], of: Counts) -> Markup:
    values = scores(of)
    rows = [
        [*key, *(f"{values[name][i]:.3f}" for name in MONITORS), of[i].sum()]
        for i, key in enumerate(keys)
    ]
    return table([*head, *(NAMES[name] for name in MONITORS), "Utterances"], rows)


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _range(interval: Interval | None) -> str:
    return f"{interval.low:.3f} – {interval.high:.3f}" if interval else _NONE


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
