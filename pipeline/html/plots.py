"""Plots as SVG elements of a page: the same input gives the same bytes.

They hold no date and no fonts. Colours are placeholders that become CSS variables, so that the
page's light, dark and print themes apply to them. Text stays text and is laid out with the font
that matplotlib ships, which is wider than the page's, so that it fits.

Shapes: K classes, E epochs, B bins, L layers.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.evaluation.calibration import ReliabilityBin
from pipeline.evaluation.layers import LayerCurve
from pipeline.metrics.classes import Floats

SERIES = 8
"""Number of line colours, `--series-0` to `--series-7`."""
INK, FAINT, PAPER, ACCENT, CELL, QUIET = (f"#0101{index:02x}" for index in range(6))
LINES = [f"#0102{index:02x}" for index in range(SERIES)]

_COLOURS = {
    INK: "--ink",
    FAINT: "--faint",
    PAPER: "--paper",
    ACCENT: "--accent",
    CELL: "--cell",
    QUIET: "--quiet",
    **{colour: f"--series-{index}" for index, colour in enumerate(LINES)},
}
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), FAINT),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.linewidth": 0.5,
    "svg.fonttype": "none",
}
_LONGEST_NAME = 18  # letters of a class name beside a matrix
_SMALLEST_CELL = 12.0  # points; cells below it hold no text


@dataclass(frozen=True)
class Curve:
    """One line: values `[E]` over epochs `[E]` (NaN: a gap), and the epoch that was kept."""

    epochs: Floats
    values: Floats
    kept: NDArray[np.bool_]
    colour: int = 0


def curves_svg(title: str, curves: Sequence[Curve], label: str) -> Markup:
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

    return _svg((3.7, 2.7), draw, label)


def matrix_svg(
    depths: Floats,
    cells: Sequence[Sequence[str]],
    classes: Sequence[str],
    label: str,
    columns: Sequence[str] = (),
) -> Markup:
    """A confusion matrix.

    Args:
        depths: `[K, C]` depth of colour from 0 to 1, true classes in rows.
        cells: `[K][C]` text of the cells.
        classes: K names; long ones are cut.
        label: Description for screen readers.
        columns: C names, of which the classes are the first; none: the classes.
    """
    columns = columns or classes
    size = len(columns)
    inches = float(np.clip(2.2 + 0.4 * size, 4.6, 9.0))
    cell = 72 * (inches - 1.5) / size
    font = min(9.0, cell * 0.36)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, column in np.ndindex(len(classes), size):
            where, depth = (column - 0.5, row - 0.5), float(depths[row, column])
            axes.add_patch(Rectangle(where, 1, 1, facecolor=CELL, alpha=depth, linewidth=0))
            if cell >= _SMALLEST_CELL:
                text = axes.text(column, row, cells[row][column], ha="center", va="center")
                text.set(color=INK, fontsize=font)
        names = [_cut(name) for name in classes], [_cut(name) for name in columns]
        _label_classes(axes, *names, min(9.0, cell * 0.8))

    return _svg((inches, inches), draw, label)


def reliability_svg(title: str, binning: str, bins: Sequence[ReliabilityBin], label: str) -> Markup:
    """Accuracy over confidence, and below it the number of rows of each bin.

    Args:
        title: Heading of the plot.
        binning: How the bins were cut, for the legend.
        bins: Bins; those on the diagonal are calibrated.
        label: Description for screen readers.
    """

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot((0, 1), (0, 1), color=QUIET, linewidth=1, linestyle="--", label="calibrated")
        points = [[point.confidence for point in bins], [point.accuracy for point in bins]]
        upper.plot(*points, "o-", color=LINES[0], markersize=4, linewidth=1.3, label=binning)
        upper.set(ylim=(-0.02, 1.02), ylabel="accuracy")
        upper.set_title(title, loc="left")
        upper.grid(alpha=0.6)
        upper.legend(loc="upper left", frameon=False, fontsize=8)
        sides = [point.low for point in bins], [point.high - point.low for point in bins]
        counts = [point.count for point in bins]
        lower.bar(sides[0], counts, sides[1], align="edge", color=ACCENT, edgecolor=PAPER)
        lower.set(xlim=(-0.02, 1.02), xlabel="confidence", ylabel="rows")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))

    return _svg((3.9, 4.3), draw, label)


def ranked_svg(values: Sequence[float], mean: float, ylabel: str, label: str) -> Markup:
    """Values from 0 to 1 as dots in the given order, and a line to compare them with.

    Args:
        values: Values in the order of the dots.
        mean: Height of the line.
        ylabel: Name of the values.
        label: Description for screen readers.
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

    return _svg((5.2, 2.4), draw, label)


def identity_svg(
    title: str, limits: tuple[float, float], points: Floats, axes: tuple[str, str], label: str
) -> Markup:
    """Points that should lie on the diagonal, with a range of each.

    Args:
        title: Heading of the plot.
        limits: Ends of both axes.
        points: `[B, 4]`: x, y, and the lower and upper end of the range of y.
        axes: Names of the two axes.
        label: Description for screen readers.
    """

    def draw(figure: Figure) -> None:
        plot = figure.subplots()
        plot.plot(limits, limits, color=QUIET, linewidth=1, linestyle="--")
        x, y, low, high = points.T
        plot.vlines(x, low, high, color=ACCENT, linewidth=5, alpha=0.3)
        plot.plot(x, y, "o-", color=LINES[0], markersize=4, linewidth=1.3)
        margin = 0.02 * (limits[1] - limits[0])
        ends = (limits[0] - margin, limits[1] + margin)
        plot.set(xlim=ends, ylim=ends, xlabel=axes[0], ylabel=axes[1], aspect="equal")
        plot.set_title(title, loc="left")
        plot.grid(alpha=0.6)

    return _svg((3.3, 3.3), draw, label)


def layers_svg(found: LayerCurve, metric: str, title: str) -> Markup:
    """Validation and test score of each layer's probe, with the interval of the latter.

    Args:
        found: Scores of the layers.
        metric: Name of the score.
        title: Name of the score for people.
    """
    numbers = np.array([layer.number for layer in found.layers])
    valid, test = (
        np.array([getattr(layer, split)[metric] for layer in found.layers])
        for split in ("valid", "test")
    )
    ranges = [layer.intervals.get(metric) for layer in found.layers]
    words = (
        f"{title} of a linear probe by layer of {found.name}: layer {found.chosen} is chosen by "
        f"validation, where it has {found.best.valid[metric]:.3f}, and has "
        f"{found.best.test[metric]:.3f} on the test split; the table below has the numbers"
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(found.chosen, color=QUIET, linewidth=1, linestyle="--", label="chosen layer")
        for number, of in zip(numbers, ranges, strict=True):
            if of is not None:
                axes.vlines(number, of.low, of.high, color=ACCENT, linewidth=5, alpha=0.3)
        tested = "test, 95 % interval" if any(ranges) else "test"
        axes.plot(numbers, test, "o-", color=LINES[0], label=tested, markersize=4, linewidth=1.3)
        axes.plot(numbers, valid, "s--", color=LINES[1], label="validation", markersize=4)
        _number_layers(axes, numbers)
        axes.set_title(f"{title} of linear probes", loc="left")
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)

    return _svg((5.2, 3.3), draw, words)


def mixes_svg(numbers: Sequence[int], shares: Sequence[Floats], label: str) -> Markup:
    """Learned weights of layers: a line for each trained model, their mean, and equal weights.

    Args:
        numbers: L layers.
        shares: `[L]` of each model.
        label: Description for screen readers.
    """
    order = np.argsort(numbers)
    layers = np.array(numbers)[order]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(1 / len(numbers), color=QUIET, linewidth=1, linestyle="--")
        for of in shares:
            axes.plot(layers, of[order], color=LINES[0], linewidth=1, alpha=0.35)
        axes.plot(layers, np.mean(shares, axis=0)[order], "o-", color=INK, markersize=4)
        _number_layers(axes, layers)
        axes.set_ylim(0, 1.15 * np.max(shares))
        axes.set_title("Weight of each layer", loc="left")

    return _svg((5.2, 2.7), draw, label)


def _number_layers(axes: Axes, numbers: NDArray[np.int64]) -> None:
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(13, integer=True, min_n_ticks=1))
    axes.set_xlim(numbers[0] - 0.4, numbers[-1] + 0.4)
    axes.grid(axis="y", alpha=0.6)


def _label_classes(axes: Axes, names: Sequence[str], columns: Sequence[str], font: float) -> None:
    size, width = len(names), len(columns)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_aspect("equal", anchor="N")
    axes.set_xticks(range(width), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0, labelsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_xticks(np.arange(width + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", alpha=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _svg(inches: tuple[float, float], draw: Callable[[Figure], None], label: str) -> Markup:
    """An `svg` element with what `draw` puts into a figure, as wide as the page lets it.

    Args:
        inches: Width and height; together with the font size they decide how large text appears.
        draw: Draws with the colours of this module.
        label: Description for screen readers, unique within a page.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        # the browser has the letters that matplotlib's font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()
        # ids are hashes of content and salt: with the label in it, no two plots of a page share any
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": f"heronry {label}"})
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inlined(text.getvalue(), label)


def _inlined(svg: str, label: str) -> Markup:
    """The element alone, in the page's colours, sized by the page."""
    # these ids are counted from 1 in every plot, so that a page of two would hold each twice
    svg = re.sub(r' id="[a-z]+[\w.]*_\d+"', "", svg[svg.index("<svg") :])
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, f"var({name})")
    view = re.search(r'viewBox="[\d. ]+"', svg)
    assert view
    start = f'<svg class="plot" {view[0]} role="img" aria-label="{html.escape(label)}">'
    return Markup(start + svg[svg.index(">") + 1 :].rstrip())
