"""The plots of the report (pipeline.html.svg).

Legend: K classes, E epochs, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.evaluation.calibration import ReliabilityBin
from pipeline.html.svg import ACCENT, CELL, INK, LINES, PAPER, QUIET, SERIES, render
from pipeline.metrics import Floats

_LONGEST_NAME = 18  # letters of a class name beside a matrix
_SMALLEST_CELL = 12.0  # points; cells below it hold no text


@dataclass(frozen=True)
class Curve:
    """One line: values `[E]` over epochs `[E]` (NaN: a gap), and which point was kept."""

    epochs: Floats
    values: Floats
    kept: NDArray[np.bool_]
    colour: int = 0


def curves_svg(title: str, curves: Sequence[Curve], label: str) -> str:
    """Curves over epochs, kept epochs marked."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for curve in curves:
            colour = LINES[curve.colour % SERIES]
            axes.plot(curve.epochs, curve.values, color=colour, linewidth=1.3, alpha=0.85)
            kept = (curve.epochs[curve.kept], curve.values[curve.kept])
            axes.plot(*kept, "o", color=colour, markersize=5, markeredgecolor=PAPER)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.grid(axis="y", alpha=0.6)

    return render((3.7, 2.7), draw, label)


def matrix_svg(
    depths: Floats, cells: Sequence[Sequence[str]], classes: Sequence[str], label: str
) -> str:
    """A confusion matrix.

    Args:
        depths: `[K, K]` depth of colour from 0 to 1, true classes in rows.
        cells: `[K][K]` text of the cells.
        classes: K names; long ones are cut.
        label: What it is, for readers who do not see it.
    """
    size = len(classes)
    inches = float(np.clip(2.2 + 0.4 * size, 4.6, 9.0))
    cell = 72 * (inches - 1.5) / size
    font = min(9.0, cell * 0.36)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, column in np.ndindex(size, size):
            where, depth = (column - 0.5, row - 0.5), float(depths[row, column])
            axes.add_patch(Rectangle(where, 1, 1, facecolor=CELL, alpha=depth, linewidth=0))
            if cell >= _SMALLEST_CELL:
                text = axes.text(column, row, cells[row][column], ha="center", va="center")
                text.set(color=INK, fontsize=font)
        _label_classes(axes, [_cut(name) for name in classes], min(9.0, cell * 0.8))

    return render((inches, inches), draw, label)


def reliability_svg(
    title: str, series: Sequence[tuple[str, Sequence[ReliabilityBin]]], label: str
) -> str:
    """Accuracy over confidence, and below it how many rows lie in the bins of the first series.

    Args:
        title: Above the plot.
        series: Up to three names with their bins; those on the diagonal are calibrated.
        label: What it is, for readers who do not see it.
    """

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot((0, 1), (0, 1), color=QUIET, linewidth=1, linestyle="--", label="calibrated")
        for index, (name, bins) in enumerate(series):
            points = [[point.confidence for point in bins], [point.accuracy for point in bins]]
            marks = ("o-", "s:", "^:")[index]
            upper.plot(*points, marks, color=LINES[index], markersize=4, linewidth=1.3, label=name)
        upper.set(ylim=(-0.02, 1.02), ylabel="accuracy")
        upper.set_title(title, loc="left")
        upper.grid(alpha=0.6)
        upper.legend(loc="upper left", frameon=False, fontsize=8)
        _, bins = series[0]
        sides = [point.low for point in bins], [point.high - point.low for point in bins]
        counts = [point.count for point in bins]
        lower.bar(sides[0], counts, sides[1], align="edge", color=ACCENT, edgecolor=PAPER)
        lower.set(xlim=(-0.02, 1.02), xlabel="confidence", ylabel="rows")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))

    return render((3.9, 4.3), draw, label)


def ranked_svg(values: Sequence[float], mean: float, ylabel: str, label: str) -> str:
    """Values from 0 to 1 as dots in the given order, and a line to compare them with.

    Args:
        values: In order.
        mean: Where the line is.
        ylabel: What they are.
        label: What it is, for readers who do not see it.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = np.arange(1, len(values) + 1)
        axes.axhline(mean, color=QUIET, linewidth=1, linestyle="--")
        axes.plot(places, values, "o", color=ACCENT, markersize=5)
        axes.set(ylim=(-0.03, 1.03), ylabel=ylabel, xlim=(0.4, len(values) + 0.6))
        axes.set_xlabel("speakers, worst first")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.grid(axis="y", alpha=0.6)

    return render((5.2, 2.4), draw, label)


def _label_classes(axes: Axes, names: Sequence[str], font: float) -> None:
    size = len(names)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_aspect("equal", anchor="N")
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0, labelsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", alpha=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
