"""The report's first section: scores, how sure they are, and what they are to be compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evaluation.groups import UtteranceGroup
from pipeline.evaluation.statistics import DRAWS, Scores
from pipeline.evaluation.summaries import Summary
from pipeline.html.format import NAMES, few, gauge, many, number, same_people, span, with_span
from pipeline.html.markup import Markup, element, quiet, table
from pipeline.report.records import Report

SUBSETS = (
    "What lacks a class (a fold, a draw, a group, this test split) is scored without it, as "
    "scikit-learn does: UAR is over the classes of its labels, macro F1 over those of its labels "
    "and predictions, so that one predicted and absent counts as 0 there. "
)


def scores_of(report: Report) -> Iterator[Markup]:
    """The metrics, the baselines, and one-vs-rest accuracy beside accuracy."""
    yield _metrics(report)
    yield quiet(*_reading(report))
    yield element("h3", "Baselines")
    yield from _baselines(report)
    yield element("h3", "One-vs-rest accuracy")
    yield from _one_vs_rest(report)


def interval_note(report: Report) -> str:
    """What intervals are, and how far they may be believed."""
    clusters = report.clusters
    if not report.intervals:
        return f"No intervals: all test utterances are of one {clusters.unit}."
    shared = same_people(clusters.shared_speakers, clusters.unit)
    return (
        f"Intervals: percentile bootstrap over {many(clusters.number, clusters.unit)}, {DRAWS} "
        f"draws, 95 %. The spread over seeds is not "
        f"in them.{few(clusters.number, clusters.unit)} {shared}".rstrip()
    )


def _metrics(report: Report) -> Markup:
    several = report.run.folds > 1
    averaged = ["Mean over folds", "SD over folds"] if several else []
    header = ["Metric", "Folds pooled" if several else "Score", "95 % interval", "From 0 to 1"]
    return table(
        [*header, "SD over seeds", *averaged],
        [_row(report.summaries[name], several=several) for name in NAMES],
        style="headline",
        caption="Test split: bar, the interval; tick, the majority class",
    )


def _row(found: Summary, *, several: bool) -> list[object]:
    averaged = [number(found.fold_mean), number(found.fold_sd)] if several else []
    return [
        NAMES[found.name],
        number(found.value),
        span(found.interval),
        gauge(found.value, found.interval, found.majority),
        number(found.sd),
        *averaged,
    ]


def _reading(report: Report) -> Iterator[str]:
    run = report.run
    yield "UAR is the mean recall over classes, WA the share of utterances that are right. "
    yield SUBSETS
    if len(run.seeds) > 1:
        yield f"A score is the mean over {len(run.seeds)} seeds. "
    if run.folds > 1:
        yield (
            f"Pooled: the test predictions of all {run.folds} folds are scored together, which is "
            "the score meant wherever nothing else is said. Mean over folds: every fold is scored "
            "by itself, and these scores averaged. "
        )
    yield interval_note(report)


def _baselines(report: Report) -> Iterator[Markup]:
    found = report.summaries
    this = [element("b", "This model")]
    of_model = [with_span(found[name].value, found[name].interval) for name in NAMES]
    rows: list[Sequence[object]] = [[*this, *of_model]]
    rows += [[f"Linear probe on {p.slot}", *_group(p.whole)] for p in report.probes]
    guesses = report.baselines
    for title, of in (
        ("Prior", guesses.prior),
        ("Chance", guesses.chance),
        ("Majority class", guesses.majority),
    ):
        rows.append([title, *(number(of[name]) for name in NAMES)])
    yield table(["", *NAMES.values()], rows, caption="The same test utterances")
    listed = list(_explained(report))
    yield element("ul", *(element("li", line) for line in listed), style="quiet")


def _group(group: UtteranceGroup) -> list[Markup]:
    return [with_span(group.scores.get(name), group.intervals.get(name)) for name in NAMES]


def _explained(report: Report) -> Iterator[str]:
    if report.probes:
        yield (
            "Linear probe: logistic regression on the time average of one slot's features, trained "
            "on the training split alone. It is what one modality is worth without fusion."
        )
        if report.run.regime == "e2e":
            yield (
                "The features are those of the tuned networks, which have seen the labels of the "
                "training split: for what the pretrained features are worth, see a run on caches."
            )
    else:
        yield "Linear probes on single slots: this run holds none; training again adds them."
    yield "Prior: expected score of guessing classes as often as they occur in training."
    yield "Chance: expected score of guessing all classes alike."
    names = ", ".join(dict.fromkeys(report.baselines.majority_classes))
    yield f"Majority class: the most frequent one in training for every utterance ({names})."


def _one_vs_rest(report: Report) -> Iterator[Markup]:
    classes = len(report.run.classes)
    guesses = report.baselines
    values = {name: of.value for name, of in report.summaries.items()}
    rows = [
        [title, *(number(of[name]) for name in ("ovr_accuracy", "accuracy"))]
        for title, of in _systems(values, guesses.majority, guesses.chance)
    ]
    header = ["", "Mean one-vs-rest accuracy", "Accuracy"]
    yield table(header, rows, caption="Both, so that they are not mistaken for each other")
    accuracy = f"{values['accuracy']:.3f}"
    yield quiet(
        "Mean one-vs-rest accuracy, LPGNet's metric, averages the accuracies of the K decisions "
        "“this class or another”. It is not accuracy: every wrong prediction is wrong in exactly "
        "two of the K decisions, that on its true class and that on the predicted one, so that it "
        "is always 1\N{NBSP}−\N{NBSP}2\N{NBSP}(1\N{NBSP}−\N{NBSP}accuracy)\N{NBSP}/\N{NBSP}K; "
        f"here 1\N{NBSP}−\N{NBSP}2\N{NBSP}(1\N{NBSP}−\N{NBSP}{accuracy})\N{NBSP}/\N{NBSP}{classes}"
        f" = {values['ovr_accuracy']:.3f}. It ranks models as accuracy does, and is high for any."
    )


def _systems(model: Scores, majority: Scores, chance: Scores) -> Iterator[tuple[object, Scores]]:
    yield element("b", "This model"), model
    yield "Majority class", majority
    yield "Chance", chance
