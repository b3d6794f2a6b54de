"""The report's sections on single slots: what the model is without one, and where words fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation.groups import Grouping, UtteranceGroup
from pipeline.evaluation.slots import Difference
from pipeline.html.format import NAMES, NONE, signed, signed_span, with_span
from pipeline.html.markup import Markup, element, quiet, table
from pipeline.report.groups import grouping_of
from pipeline.report.records import Report
from pipeline.runs.head import read_head

_TITLES = {
    "words": "By words (ambiguous: the corpus has them under other labels too)",
    "text_probe": "By text probe (neutral: it reads the text alone so)",
    "lexical": "Both together",
}
_NEUTRAL = {"lexical": "neutral", "words": "ambiguous", "text_probe": "neutral"}
"""The group that is lexically neutral, by field, in order of preference."""
_ASR = "asr_text"
_CONDITIONS = {_ASR: "recognised text (ASR)"}


def robustness_of(report: Report) -> Iterator[Markup]:
    """The trained model under worse conditions."""
    if not report.conditions:
        yield quiet("This run holds no test of worse conditions; training again adds them.")
        return
    model = [with_span(report.summaries[n].value, report.summaries[n].interval) for n in NAMES]
    rows: list[Sequence[object]] = [[element("b", "This model"), *model]]
    rows += [[condition_name(c.name), *_group(c.whole)] for c in report.conditions]
    yield table(["", *NAMES.values()], rows, caption="Scores under worse conditions")
    changes = [
        [condition_name(c.name), *(_change(c.differences.get(name)) for name in NAMES)]
        for c in report.conditions
    ]
    caption = "Change from the model itself, paired, with its 95 % interval"
    yield table(["", *NAMES.values()], changes, caption=caption)
    yield quiet(
        "The trained model is not trained again. Without a slot: its features are zeros. Shuffled "
        "text: each test utterance gets the text of another one, so that what the score loses is "
        "what it owed to the words. A change is credible where its interval does not hold 0."
    )
    found = read_head(report.run.path).get("asr")
    if any(c.name == _ASR for c in report.conditions) and found:
        yield quiet(_recognised(found))


def neutral_of(report: Report) -> Iterator[Markup]:
    """Where the words do not decide: HERON's claim is that sound earns its place there."""
    found = {grouping.field: grouping for grouping in report.groupings}
    if not _NEUTRAL.keys() & found.keys():
        yield quiet("Neither transcripts nor sentences nor a text probe are known of this corpus.")
        return
    yield quiet(
        "An utterance is lexically neutral if the corpus has the same words under two or more "
        "labels, or if a linear probe on the text alone takes it for neutral. Scripted sentences "
        "stand for their words."
    )
    yield from _compared(report, _neutral_group(found))
    for field, title in _TITLES.items():
        if field in found:
            yield from grouping_of(title, found[field])


def condition_name(name: str) -> str:
    """For people.

    >>> condition_name("without_speech"), condition_name("asr_text")
    ('without speech', 'recognised text (ASR)')
    """
    return _CONDITIONS.get(name, name.replace("_", " ", 1))


def _recognised(found: Mapping[str, Any]) -> str:
    """What the test on recognised words rests on, from `asr` of run.json."""
    tested, heard, words = (int(found.get(key, 0)) for key in ("tested", "recognised", "words"))
    said = (
        f"Recognised text: {heard:,} of {tested:,} test utterances get the words that a speech "
        f"recogniser heard, by the backbone {found.get('backbone', NONE)}."
    )
    if tested > heard:
        said += (
            f" The other {tested - heard:,} had none: there the reference stays, so that what "
            "recognition costs may be understated."
        )
    if words:
        said += (
            f" Word error rate against the reference: {int(found['word_errors']) / words:.1%} of "
            f"{words:,} words, without case and punctuation."
        )
    return said


def _neutral_group(found: dict[str, Grouping]) -> UtteranceGroup | None:
    for field, name in _NEUTRAL.items():
        if field in found:
            return next((group for group in found[field].groups if group.name == name), None)
    return None


def _compared(report: Report, model: UtteranceGroup | None) -> Iterator[Markup]:
    """The model, its conditions and the probes on the neutral utterances alone."""
    if model is None or not model.scores:
        count = model.utterances if model else 0
        yield quiet(f"Too few lexically neutral test utterances to score: {count}.")
        return
    rows: list[Sequence[object]] = [[element("b", "This model"), *_group(model), NONE]]
    rows += [
        [condition_name(c.name), *_group(c.neutral), _change(c.neutral_differences.get("uar"))]
        for c in report.conditions
        if c.neutral
    ]
    rows += [
        [f"Linear probe on {probe.slot}", *_group(probe.neutral), NONE]
        for probe in report.probes
        if probe.neutral
    ]
    caption = f"On the {model.utterances:,} lexically neutral test utterances alone"
    yield table(["", *NAMES.values(), "Change of UAR"], rows, caption=caption)


def _group(group: UtteranceGroup) -> list[Markup]:
    return [with_span(group.scores.get(name), group.intervals.get(name)) for name in NAMES]


def _change(found: Difference | None) -> Markup:
    if found is None:
        return element("span", NONE)
    below = [element("small", signed_span(found.interval))] if found.interval else []
    return Markup("".join([signed(found.value), *below]))
