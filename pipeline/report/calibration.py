"""The report's section on calibration: may the probabilities be believed?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evaluation.calibration import BOUNDS, Calibration, CalibrationScores, ReliabilityBin
from pipeline.html.format import NONE, many
from pipeline.html.markup import Markup, element, folded, quiet, table
from pipeline.html.plots import reliability_svg

_NAMES = {
    "nll": "Negative log-likelihood (nats)",
    "brier": "Brier score (0 to 2)",
    "ece": "ECE",
    "ece_adaptive": "ECE, bins of equally many rows",
}


def calibration_of(found: Calibration) -> Iterator[Markup]:
    """Scores before and after temperature scaling, and reliability plots."""
    yield table(
        ["Lower is better", "As predicted", "After temperature scaling"],
        [[title, *_pair(found, name)] for name, title in _NAMES.items()],
        caption="Probabilities of the test split, means over seeds",
    )
    yield quiet(*_reading(found))
    plots = [
        ("As predicted", [("equal width", found.reliability)]),
        ("Bins of equally many rows", [("equal count", found.reliability_adaptive)]),
    ]
    if found.reliability_after is not None:
        plots.insert(1, ("After temperature scaling", [("equal width", found.reliability_after)]))
    drawn = [element("div", Markup(_plot(title, series))) for title, series in plots]
    yield element("div", *drawn, style="trio")
    yield quiet(
        "Reliability: a bin's accuracy over its mean confidence, the probability of the predicted "
        "class, with the rows of all seeds together. Below the dashed line the model is too sure "
        "of itself, above it not sure enough."
    )
    bins = [_bins(title, series[0][1]) for title, series in plots]
    yield folded("Reliability as tables", *bins)


def _pair(found: Calibration, name: str) -> Iterator[str]:
    def value(of: CalibrationScores | None) -> str:
        return NONE if of is None else f"{getattr(of, name):.4f}"

    yield value(found.before)
    yield value(found.after)


def _reading(found: Calibration) -> Iterator[str]:
    yield (
        "ECE: expected calibration error of the predicted class, the distance of accuracy and "
        f"confidence over {found.bins} bins. "
    )
    if found.temperatures:
        low, high = min(found.temperatures), max(found.temperatures)
        yield (
            "Each trained model's probabilities are scaled by one temperature, fitted on its "
            "validation rows alone; predictions stay as they are. Temperatures: "
            f"{low:.2f} to {high:.2f} (above 1, the model was too sure). "
        )
    else:
        yield "No temperature: some trained model has no validation rows. "
    if found.at_bound:
        yield (
            f"{many(found.at_bound, 'temperature')} ended at a bound of the search "
            f"({BOUNDS[0]:g}, {BOUNDS[1]:g}): those validation rows are all right, or no better "
            "than chance. "
        )
    if found.clipped:
        yield (
            f"{many(found.clipped, 'test row')} gave the true class a probability of 0, which "
            "counts as 2.2e-16 in the log-likelihood."
        )


def _plot(title: str, series: Sequence[tuple[str, Sequence[ReliabilityBin]]]) -> str:
    label = f"Reliability plot, {title.lower()}; the tables below have the numbers"
    return reliability_svg(title, series, label)


def _bins(title: str, bins: Sequence[ReliabilityBin]) -> Markup:
    rows = [
        [
            f"{point.low:.3f} – {point.high:.3f}",
            *(f"{value:.3f}" for value in (point.confidence, point.accuracy)),
            f"{point.count:,}",
        ]
        for point in bins
    ]
    return table(["Confidence", "Mean confidence", "Accuracy", "Rows"], rows, caption=title)
