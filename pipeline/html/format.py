"""How the report writes numbers, intervals and the names of things."""

from __future__ import annotations

from pipeline.evaluation.statistics import FEW_CLUSTERS, ConfidenceInterval
from pipeline.html.markup import Markup, element

NAMES = {
    "accuracy": "Accuracy (WA)",
    "uar": "UAR",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
}
"""Of metrics, in order of importance."""
NONE = "–"
WIDTH = 168
"""Of a gauge from 0 to 1."""


def number(value: float | None) -> str:
    """Three decimals."""
    return NONE if value is None else f"{value:.3f}"


def span(interval: ConfidenceInterval | None) -> str:
    """Both ends.

    >>> span(ConfidenceInterval(0.25, 0.5))
    '0.250 – 0.500'
    """
    return f"{interval.low:.3f} – {interval.high:.3f}" if interval else NONE


def signed(value: float) -> str:
    """With its sign, a minus that is as wide as a plus.

    >>> signed(-0.25), signed(-0.0)
    ('−0.250', '0.000')
    """
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def signed_span(interval: ConfidenceInterval | None) -> str:
    """Both ends with their signs."""
    return f"{signed(interval.low)} to {signed(interval.high)}" if interval else NONE


def with_span(value: float | None, interval: ConfidenceInterval | None) -> Markup:
    """A score with its interval below it in small print."""
    below = [element("small", span(interval))] if interval else []
    return Markup("".join([number(value), *below]))


def spread(mean: float, sd: float | None) -> str:
    """`0.500 ± 0.010`; the mean alone where there is no standard deviation."""
    return number(mean) + (f" ± {sd:.3f}" if sd is not None else "")


def many(count: int, what: str) -> str:
    """A number of things.

    >>> many(1, "seed"), many(1200, "seed")
    ('1 seed', '1,200 seeds')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def few(clusters: int, unit: str) -> str:
    """A warning where intervals rest on few clusters; empty otherwise."""
    if clusters >= FEW_CLUSTERS:
        return ""
    return f" Only {many(clusters, unit)}: the true interval is likely wider."


def same_people(shared: int, unit: str, *, p: bool = False) -> str:
    """A warning where speakers recur in several of what is drawn; empty otherwise.

    Args:
        shared: How many speakers do.
        unit: What is drawn, such as "dialogue".
        p: Whether p are shown too.
    """
    if not shared:
        return ""
    tests = " and p too small" if p else ""
    return (
        f"Some {unit}s share speakers ({many(shared, 'speaker')} in several), so that intervals "
        f"are too narrow{tests} for other people."
    )


def gauge(value: float, interval: ConfidenceInterval | None, tick: float | None = None) -> Markup:
    """Score (dot), interval (bar) and something to compare it with (tick), from 0 to 1."""
    place = [4 + WIDTH * x for x in (value, interval.low, interval.high)] if interval else []
    bar, mark, told = "", "", f"{value:.3f}"
    if interval:
        _, low, high = place
        told += f", interval {interval.low:.3f} to {interval.high:.3f}"
        bar = (
            f'<path d="M{low:.1f} 11H{high:.1f}" stroke-width="5" opacity=".45"/>'
            f'<path d="M{low:.1f} 6V16M{high:.1f} 6V16" stroke-width="1.5"/>'
        )
    if tick is not None:
        told += f", tick at {tick:.3f}"
        mark = f'<path d="M{4 + WIDTH * tick:.1f} 4V18" stroke="var(--quiet)" stroke-width="2"/>'
    return Markup(
        f'<svg class="gauge" viewBox="0 0 176 22" role="img" aria-label="{told}, from 0 to 1">'
        '<path d="M4 11H172M4 8V14M172 8V14" stroke="var(--faint)"/>'
        f'<g stroke="var(--accent)">{bar}</g>{mark}'
        f'<circle cx="{4 + WIDTH * value:.1f}" cy="11" r="3" fill="var(--accent)"/></svg>'
    )
