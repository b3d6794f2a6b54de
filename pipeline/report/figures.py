"""The plots of the report, and what they say in words for readers who do not see them."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from pipeline.evaluation.calibration import Calibration, ReliabilityBin
from pipeline.evaluation.layers import MixedSlot
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import NAMES
from pipeline.html.plots import (
    Curve,
    curves_svg,
    matrix_svg,
    mixes_svg,
    ranked_svg,
    reliability_svg,
)
from pipeline.metrics.classes import MONITORS
from pipeline.report.records import Report

NO_CLASS = "no class"
"""Name of a prediction that names none of the classes."""


def curves(run: RunFolder) -> list[Markup]:
    """Losses and a validation metric over epochs, a line a trained model; empty without epochs."""
    if not any(len(job.history) for job in run.jobs):
        return []
    shown = monitor_shown(run)
    panels = {"train_loss": "Training loss", "valid_loss": "Validation loss"}
    panels[f"valid_{shown}"] = f"Validation {NAMES[shown]}"
    return [_curves(run, column, title) for column, title in panels.items()]


def monitor_shown(run: RunFolder) -> str:
    """The metric that selected the epoch; UAR where that was the loss."""
    monitor = str(run.train.get("monitor"))
    return monitor if monitor in MONITORS else "uar"


def _curves(run: RunFolder, column: str, title: str) -> Markup:
    lines = [
        Curve(
            job.history.numbers("epoch"),
            job.history.numbers(column),
            job.history.numbers("best") == 1,
            run.seeds.index(job.seed),
        )
        for job in run.jobs
    ]
    starts = [line.values[0] for line in lines if len(line.values)]
    kept = np.concatenate([line.values[line.kept] for line in lines])
    words = (
        f"{title} over epochs, {len(lines)} trained models, on average {np.mean(starts):.3f} in "
        f"the first epoch, {np.mean(kept):.3f} in those kept"
    )
    return curves_svg(title, lines, words)


def as_predicted(report: Report) -> list[str]:
    """Header of the confusion table."""
    return ["True class", *(f"as {name}" for name in _columns(report))]


def _columns(report: Report) -> tuple[str, ...]:
    """Names of the columns of the confusion matrix: the classes, and none of them."""
    whole = (*report.run.classes, NO_CLASS)
    return whole[: report.confusions.shape[-1]]


def confusion_plots(report: Report) -> list[tuple[str, Markup]]:
    """Titles and plots of the counts and of the shares."""
    counts, seeds = report.confusions.sum(0), len(report.run.seeds)
    over = f", summed over {seeds} seeds" if seeds > 1 else ""
    found = []
    for title, depths, values, form in (
        (f"Counts{over}", counts / max(counts.max(), 1), counts, "d"),
        ("Share of each true class", report.shares, report.shares, ".2f"),
    ):
        words = f"Confusion matrix: {title}; the table below has the numbers"
        cells = [[f"{value:{form}}" for value in row] for row in values]
        columns = _columns(report)
        found.append((title, matrix_svg(depths, cells, report.run.classes, words, columns)))
    return found


def reliability_plots(found: Calibration) -> list[tuple[str, Markup, tuple[ReliabilityBin, ...]]]:
    """Titles, plots and bins: as predicted, after temperature scaling where known, adaptive."""
    plots = []
    for title, binning, bins in (
        ("As predicted", "equal width", found.reliability),
        ("After temperature scaling", "equal width", found.reliability_after),
        ("Bins of equally many rows", "equal count", found.reliability_adaptive),
    ):
        if bins is not None:
            words = f"Reliability plot, {title.lower()}; the tables below have the numbers"
            plots.append((title, reliability_svg(title, binning, bins, words), bins))
    return plots


def mix_plot(found: MixedSlot) -> Markup:
    """Learned weights of a slot's layers."""
    highest = max(found.rows, key=lambda row: row[1])
    words = (
        f"Weights of the layers of {found.slot}, {len(found.models)} trained models: on average "
        f"highest for layer {highest[0]} ({highest[1]:.3f}); the table below has the numbers"
    )
    return mixes_svg(found.numbers, [model.mix.shares for model in found.models], words)


def speaker_plot(report: Report) -> Markup:
    """Accuracy of each speaker, worst first."""
    accuracies = [speaker.accuracy for speaker in report.speaker_spread.speakers]
    words = "Accuracy of each speaker, worst first; dashed, that of all; numbers below"
    return ranked_svg(accuracies, report.summaries["accuracy"].value, "accuracy", words)
