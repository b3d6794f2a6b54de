"""Plots as SVG to be put inside a page: same input, same bytes; no date, no fonts.

Colours are placeholders that become CSS variables, so that the page's light, dark and print themes
reach into the plots. Text stays text and is laid out with the font that matplotlib ships, which
is wider than the page's, so it fits.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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


def render(inches: tuple[float, float], draw: Callable[[Figure], None], label: str) -> str:
    """Let `draw` fill a figure; returns an `svg` element that is as wide as the page lets it.

    Args:
        inches: Width and height; together with the font size they decide how large text appears.
        draw: Uses the colours of this module.
        label: What the plot shows, for readers who do not see it; each of a page another one.
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
