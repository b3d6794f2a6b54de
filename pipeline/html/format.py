"""Numbers, intervals and names of metrics as text for people."""

from __future__ import annotations

from pipeline.evaluation.statistics import FEW_CLUSTERS, LEAST_CLUSTERS, ConfidenceInterval

NAMES = {
    "accuracy": "Accuracy (WA)",
    "uar": "UAR",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
}
"""Titles of metrics, in order of importance."""
NONE = "–"


def dash(value: object) -> object:
    """The value, or a dash for None and empty text."""
    return NONE if value is None or value == "" else value


def number(value: float | None) -> str:
    """Three decimals."""
    return NONE if value is None else f"{value:.3f}"


def span(interval: ConfidenceInterval | None) -> str:
    """Both ends of an interval.

    >>> span(ConfidenceInterval(0.25, 0.5))
    '0.250 – 0.500'
    """
    return f"{interval.low:.3f} – {interval.high:.3f}" if interval else NONE


def signed(value: float) -> str:
    """Three decimals with their sign; the minus is as wide as the plus.

    >>> signed(-0.25), signed(-0.0)
    ('−0.250', '0.000')
    """
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def signed_span(interval: ConfidenceInterval | None) -> str:
    """Both ends of an interval with their signs."""
    return f"{signed(interval.low)} to {signed(interval.high)}" if interval else NONE


def quantity(count: int, noun: str) -> str:
    """A count with its noun in singular or plural.

    >>> quantity(1, "seed"), quantity(1200, "seed")
    ('1 seed', '1,200 seeds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader would use.

    >>> duration(45), duration(109.4), duration(7200)
    ('45 s', '1.8 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def few_clusters_note(clusters: int, unit: str) -> str:
    """A warning where clusters are too few for intervals, or for exact ones; empty otherwise.

    >>> few_clusters_note(4, "speaker"), few_clusters_note(10, "speaker")  # doctest: +ELLIPSIS
    ('Only 4 speakers in the test split: too few for ... new speakers.', '')
    """
    only = f"Only {quantity(clusters, unit)} in the test split:"
    if clusters < LEAST_CLUSTERS:
        return (
            f"{only} too few for intervals (at least {LEAST_CLUSTERS}) and for conclusions about "
            "new speakers."
        )
    if clusters < FEW_CLUSTERS:
        return f"{only} intervals, though widened, hold the truth in about 90 to 95 % of cases."
    return ""


def shared_speakers_note(shared: int, unit: str, *, p: bool = False) -> str:
    """A warning where speakers occur in several resampled units; empty otherwise.

    Args:
        shared: Number of such speakers.
        unit: What the bootstrap draws, such as "dialogue".
        p: Whether p values are shown too.
    """
    if not shared:
        return ""
    occur = "occurs" if shared == 1 else "occur"
    tests = " and p values too small" if p else ""
    return (
        f"{quantity(shared, 'speaker')} {occur} in several {unit}s: intervals are too narrow"
        f"{tests} for conclusions about new speakers."
    )
