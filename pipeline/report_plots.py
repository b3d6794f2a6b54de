"""The report's plots as SVG to be put inside a page: same input, same bytes; no date, no fonts.

Colours are placeholders that become CSS variables, so that the page's light, dark and print themes
reach into the plots. Text stays text and is laid out with the font that matplotlib ships, which
is wider than the page's, so it fits. Legend: K classes, E epochs.
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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

SERIES = 8
"""Number of line colours, `--series-0` to `--series-7`."""

_INK, _FAINT, _PAPER, _ACCENT = "#010101", "#010102", "#010103", "#010104"
_COLOURS = {_INK: "--ink", _FAINT: "--faint", _PAPER: "--paper", _ACCENT: "--accent"}
_LINES = [f"#0102{index:02x}" for index in range(SERIES)]
_COLOURS |= {colour: f"--series-{index}" for index, colour in enumerate(_LINES)}

_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _FAINT),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.linewidth": 0.5,
    "svg.fonttype": "none",
}
_LONGEST_NAME = 18  # letters of a class name beside a matrix
_DARK = 0.68  # share of the accent from which the paper's colour reads better upon it than ink
_SMALLEST_CELL = 11.0  # points: below it a number would not fit


@dataclass(frozen=True)
class Curve:
    """One line: values `[E]` over epochs `[E]` (NaN: a gap), and which point was kept."""

    epochs: NDArray[np.float64]
    values: NDArray[np.float64]
    kept: NDArray[np.bool_]
    colour: int = 0


def curves_svg(panels: Sequence[tuple[str, Sequence[Curve]]], label: str) -> str:
    """Panels side by side, each a title and its curves over epochs, kept epochs marked."""

    def draw(figure: Figure) -> None:
        for axes, (title, curves) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for curve in curves:
                colour = _LINES[curve.colour % SERIES]
                axes.plot(curve.epochs, curve.values, color=colour, linewidth=1.3, alpha=0.85)
                kept = (curve.epochs[curve.kept], curve.values[curve.kept])
                axes.plot(*kept, "o", color=colour, markersize=5, markeredgecolor=_PAPER)
            axes.set_title(title, loc="left")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            axes.grid(axis="y", alpha=0.6)

    return _render((10.0, 2.9), draw, label)


def matrix_svg(
    shares: NDArray[np.float64], cells: Sequence[Sequence[str]], classes: Sequence[str], label: str
) -> str:
    """A confusion matrix.

    Args:
        shares: `[K, K]` depth of colour from 0 to 1, true classes in rows.
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
            share = float(shares[row, column])
            where = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(where, 1, 1, facecolor=_ACCENT, alpha=share, linewidth=0))
            if cell >= _SMALLEST_CELL:
                ink = _PAPER if share > _DARK else _INK
                text = axes.text(column, row, cells[row][column], ha="center", va="center")
                text.set(color=ink, fontsize=font)
        _label_classes(axes, [_cut(name) for name in classes], min(9.0, cell * 0.8))

    return _render((inches, inches), draw, label)


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


def _render(inches: tuple[float, float], draw: Callable[[Figure], None], label: str) -> str:
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


def _inlined(svg: str, label: str) -> str:
    """The element alone, in the page's colours, sized by the page."""
    # these ids are counted from 1 in every plot, so that a page of two would hold each twice
    svg = re.sub(r' id="[a-z]+[\w.]*_\d+"', "", svg[svg.index("<svg") :])
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, f"var({name})")
    view = re.search(r'viewBox="[\d. ]+"', svg)
    assert view
    start = f'<svg class="plot" {view[0]} role="img" aria-label="{html.escape(label)}">'
    return start + svg[svg.index(">") + 1 :].rstrip()


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
