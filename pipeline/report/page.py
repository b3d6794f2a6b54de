"""The report as one HTML page: what was measured, how sure it is, and on what it rests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.html.format import many
from pipeline.html.markup import Markup, contents, document, element, quiet, section
from pipeline.report.calibration import calibration_of
from pipeline.report.classes import classes_of, confusion_of, curves_of, jobs_of
from pipeline.report.corpus import Leaks, corpus_of, leak_warning
from pipeline.report.errors import errors_of
from pipeline.report.groups import gaps_of
from pipeline.report.records import Report
from pipeline.report.robustness import neutral_of, robustness_of
from pipeline.report.scores import scores_of
from pipeline.report.sources import dropped_of, machine_of, settings_of, slots_of

_Section = tuple[str, str, Iterable[Markup]]


def page(report: Report) -> str:
    """The page; equal reports of equal run folders give equal bytes.

    Besides the report it reads the run folder's leaks.json and run.json, and the clips of the worst
    errors where the corpus is at hand.
    """
    leaks = Leaks.of(report.run, report.card)
    parts = list(_sections(report, leaks))
    return document(
        f"{report.run.fusion} on {report.run.corpus}",
        element("header", *_headline(report, leaks)),
        contents({id: title for id, title, _ in parts}),
        *(section(title, *body, id=id) for id, title, body in parts),
    )


def _sections(report: Report, leaks: Leaks) -> Iterator[_Section]:
    """Id, title and content of each, in order."""
    run = report.run
    yield "scores", "Scores", scores_of(report)
    yield "curves", "Training curves", curves_of(run)
    yield "confusion", "Confusion", confusion_of(report)
    yield "classes", "Classes", classes_of(report)
    yield "seeds", "Seeds and folds", jobs_of(report)
    yield "calibration", "Calibration", calibration_of(report.calibration)
    yield "groups", "Groups and gaps", gaps_of(report)
    yield "robustness", "Robustness", robustness_of(report)
    yield "neutral", "Lexically neutral utterances", neutral_of(report)
    yield "errors", "Worst errors", errors_of(report)
    yield "slots", "Slots", slots_of(run)
    yield "data", "Data", corpus_of(report.card, leaks)
    yield "dropped", "Dropped utterances", dropped_of(run)
    yield "settings", "Model and training", settings_of(run)
    yield "machine", "Machine and commit", machine_of(run)


def _headline(report: Report, leaks: Leaks) -> Iterator[Markup]:
    run = report.run
    yield element("h1", f"{run.fusion} on {run.corpus}")
    tested = many(report.seeds[0].utterances, "test utterance")
    left_out = f" ({report.left_out} left out)" if report.left_out else ""
    yield quiet(
        f"regime {run.regime} · model kind {run.kind} · {len(run.classes)} classes · {tested} of "
        f"{many(report.speakers, 'speaker')}{left_out} · {many(len(run.seeds), 'seed')} · "
        f"{many(run.folds, 'fold')}"
    )
    if report.card.get("disclaimer"):
        yield element("p", report.card["disclaimer"], style="note")
    yield from leak_warning(leaks)
