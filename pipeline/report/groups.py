"""The report's section on groups: does the model serve all alike?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evaluation.groups import (
    MINIMUM,
    MINIMUM_SPEAKERS,
    MINIMUM_UTTERANCES,
    Gap,
    Grouping,
    SpeakerSpread,
    UtteranceGroup,
)
from pipeline.html.format import NAMES, gauge, number, signed_span, span, with_span
from pipeline.html.markup import Markup, element, folded, quiet, table
from pipeline.html.plots import ranked_svg
from pipeline.report.records import Report

FIELDS = ("gender", "duration", "session")
_FEWEST_DOTS = 3  # speakers; fewer make no picture


def gaps_of(report: Report) -> Iterator[Markup]:
    """Groups by gender, duration and session, and single speakers."""
    yield quiet(
        f"Groups of fewer than {MINIMUM_UTTERANCES} test utterances are not scored, and those of "
        f"fewer than {MINIMUM_SPEAKERS} speakers have no interval and enter no gap. A group is "
        "scored over the classes that it has (as above), so that groups with other classes are "
        "hard to compare. "
        "The interval of a gap's size takes the highest and the lowest group of each draw: it "
        "never reaches below 0, and of many groups it lies too high. So a gap is credible where "
        "the interval of the difference of the two lies above 0; of more than two groups these "
        "were picked for lying apart, and it is somewhat too sure."
    )
    found = {grouping.field: grouping for grouping in report.groupings}
    for field in FIELDS:
        if field in found:
            yield from grouping_of(f"By {field}", found[field])
    silent = [field for field in FIELDS if field not in found]
    if silent:
        yield quiet(f"Not stated by the corpus: {', '.join(silent)}.")
    yield element("h3", "By speaker")
    yield from _speakers(report.speaker_spread, report.summaries["accuracy"].value)


def grouping_of(title: str, grouping: Grouping) -> Iterator[Markup]:
    """A heading, the groups, and how far they lie apart."""
    yield element("h3", title)
    yield groups_table(grouping.groups, f"{title}: scores and 95 % intervals")
    if grouping.gaps:
        rows = [_gap(name, grouping.gaps[name]) for name in NAMES if name in grouping.gaps]
        header = ["Gap", "Highest", "Lowest", "Size", "95 % interval", "Difference of the two"]
        yield table(header, rows, caption=f"{title}: gaps, highest minus lowest score")
    if grouping.unknown:
        yield quiet(f"Unknown of {grouping.unknown:,} test utterances.")


def groups_table(groups: Sequence[UtteranceGroup], caption: str) -> Markup:
    """One row a group: its size, and its scores with intervals."""
    header = ["Group", "Utterances", "Speakers", "UAR from 0 to 1", *NAMES.values()]
    return table(header, [_group(group) for group in groups], caption=caption)


def _group(group: UtteranceGroup) -> list[object]:
    uar = group.scores.get("uar")
    drawn: object = "too few" if uar is None else gauge(uar, group.intervals.get("uar"))
    values = [with_span(group.scores.get(name), group.intervals.get(name)) for name in NAMES]
    return [group.name, f"{group.utterances:,}", f"{group.speakers:,}", drawn, *values]


def _gap(name: str, gap: Gap) -> list[object]:
    difference = signed_span(gap.difference)
    return [NAMES[name], gap.best, gap.worst, number(gap.value), span(gap.interval), difference]


def _speakers(spread: SpeakerSpread, mean: float) -> Iterator[Markup]:
    if spread.lowest is None:
        yield quiet(f"No speaker has {MINIMUM} test utterances or more.")
        return
    values = [number(value) for value in (spread.lowest, spread.median, spread.highest)]
    header = ["Accuracy", "Lowest", "Median", "Highest"]
    caption = f"{len(spread.speakers)} speakers with {spread.minimum} test utterances or more"
    yield table(header, [["of single speakers", *values]], caption=caption)
    if spread.too_few:
        yield quiet(f"Left out for having fewer: {spread.too_few}.")
    accuracies = [speaker.accuracy for speaker in spread.speakers]
    if len(accuracies) >= _FEWEST_DOTS:
        label = "Accuracy of each speaker, worst first; dashed, that of all; numbers below"
        plot = Markup(ranked_svg(accuracies, mean, "accuracy", label))
        yield element("div", plot, style="narrow")
    rows = [[s.speaker, f"{s.utterances:,}", number(s.accuracy)] for s in spread.speakers]
    each = table(["Speaker", "Utterances", "Accuracy"], rows, caption="Speakers, worst first")
    yield folded("All speakers as a table", each)
