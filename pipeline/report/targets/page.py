"""The page of a run that learns several targets, or others than classes.

One score a target is shown first, and no sum of them. Sections about classes are those of the
other page (`pipeline.report.page`), on the rows with a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.evaluation.attributes import parts
from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.evaluation.votes.scores import MAIN
from pipeline.html.format import number, quantity, signed
from pipeline.html.pages import page_environment
from pipeline.report import corpus, summary
from pipeline.report.page import HELPERS, TEMPLATES, sections_of
from pipeline.report.targets import figures
from pipeline.report.targets.record import TargetReport
from pipeline.runs.head import read_head

TITLES = {
    "jsd": "Jensen-Shannon divergence (bits)",
    "kld": "KL divergence (nats)",
    "total_variation": "Total variation",
    "cosine": "Cosine similarity",
    "brier_soft": "Brier score (0 to 2)",
    "soft_nll": "Negative log-likelihood (nats)",
    "multilabel_macro_f1": "Macro F1 of named classes",
}
"""Titles of the scores of votes."""
_CLASSES = {
    "scores": "Scores of classes",
    "classes": "Classes and confusion",
    "calibration": "Calibration of classes",
    "groups": "Classes by group",
    "errors": "Worst errors in classes",
}
_LAST = {
    "members": "Members",
    "curves": "Training curves",
    "layers": "Layers",
    "settings": "Model and training",
    "slots": "Slots",
    "data": "Data",
    "dropped": "Utterances left out",
    "machine": "Machine and commit",
}
_OTHER_TEMPLATES = {
    "summary": "target_summary",
    "curves": "target_curves",
}
_FOLDED = ("scores", "calibration", "groups", "errors", "slots", "data", "dropped", "machine")


def target_page(report: TargetReport, *, experiment: str | None = None) -> str:
    """The page; equal reports of equal run folders give equal bytes. Arguments: those of `page`."""
    sections = _sections(report)
    view: dict[str, Any] = {
        "title": f"{report.run.fusion} on {report.run.corpus}",
        "experiment": experiment,
        "sections": sections,
        "folded": _FOLDED,
        "of_classes": tuple(_CLASSES),
        "templates": {id: f"{_OTHER_TEMPLATES.get(id, id)}.html" for id in sections},
    }
    return _TEMPLATES.get_template("target_report.html").render(view | target_view(report))


def target_view(report: TargetReport) -> dict[str, Any]:
    """Names that the templates read: the report, its parts, run.json (`head`) and leaks."""
    run, card = report.run, report.card
    # Probes of layers are fitted to classes alone.
    view: dict[str, Any] = {"results": report, "run": run, "card": card, "curves": ()}
    return view | {"head": read_head(run.path), "leaks": corpus.Leaks.of(run, card)}


def target_section(id: str, report: TargetReport) -> str:
    """Content of one section of the page."""
    name = f"{_OTHER_TEMPLATES.get(id, id)}.html"
    return _TEMPLATES.get_template(name).render(target_view(report))


def _sections(report: TargetReport) -> dict[str, str]:
    """Title by id of each section, in order."""
    found = {"summary": "Summary"}
    if report.attributes is not None:
        found["attributes"] = "Attributes"
    if report.votes is not None:
        found["votes"] = "Votes"
    if report.classes is not None:
        found |= _CLASSES
    return sections_of(report.run, read_head(report.run.path), found | _LAST)


def _headlines(report: TargetReport) -> Iterator[Mapping[str, Any]]:
    """One row a task: its score, what guessing reaches, and what a rater reaches."""
    human = report.ceilings
    if "classes" in report.tasks and report.classes is not None:
        scores, guesses = report.classes.summaries[summary.MAIN], report.classes.baselines
        yield {
            "task": "Classes",
            "metric": "UAR",
            "value": scores.value,
            "interval": scores.interval,
            "rows": report.classes.metrics["rows"],
            "baseline": number(guesses.majority[summary.MAIN]),
            "guess": "majority class",
            "human": NONE_KNOWN,
        }
    if report.attributes is not None and report.attributes.mean is not None:
        ccc = list((human.ccc if human else {}).values())
        yield {
            "task": "Attributes",
            "metric": "CCC, mean of all",
            "value": report.attributes.mean.value,
            "interval": report.attributes.mean.interval,
            "rows": report.attributes.rows,
            "baseline": _constant(report),
            "guess": "training mean",
            "human": number(sum(ccc) / len(ccc))
            if len(ccc) == len(report.run.targets.scales)
            else NONE_KNOWN,
        }
    if report.votes is not None:
        divergence = report.votes.scores[MAIN]
        yield {
            "task": "Votes",
            "metric": "JSD in bits, lower is better",
            "value": divergence.value,
            "interval": divergence.interval,
            "rows": report.votes.rows,
            "baseline": number(report.votes.prior[MAIN]),
            "guess": "training distribution",
            "human": NONE_KNOWN,
        }


NONE_KNOWN = "–"


def _constant(report: TargetReport) -> str:
    """CCC of the training mean, mean over attributes: 0, or below 0 where folds are pooled."""
    assert report.attributes is not None
    values = [each.train_mean.get("ccc") for each in report.attributes.attributes]
    known = [value for value in values if value is not None]
    return signed(sum(known) / len(known)) if len(known) == len(values) else NONE_KNOWN


def _policies(report: TargetReport) -> list[str]:
    """What was done with rows without agreement and the like, and what the model was trained on."""
    targets = report.card.get("targets") or {}
    head = read_head(report.run.path)["targets"]
    lines = [
        f"{name.replace('_', ' ')}: {value}"
        for name, value in (targets.get("policies") or {}).items()
    ]
    train = report.run.train
    size = train.get("batch_size")
    losses = head.get("losses") or {}
    lines += [f"loss of {task}: {name}, batches of {size}" for task, name in losses.items()]
    if head.get("estimator", "mean") != "mean":
        lines.append(
            f"training values: {head['estimator']} of the raters; the truth that is scored is the "
            "corpus's own mean"
        )
    if head.get("skipped_batches"):
        lines.append(f"batches without anything to learn: {head['skipped_batches']:,}")
    if report.pluralities:
        lines.append(
            f"rows without a class of the corpus whose votes have a unique plurality, which is "
            f"taken for it: {report.pluralities:,}"
        )
    return lines


def _warnings(report: TargetReport, head: Mapping[str, Any]) -> list[str]:
    """All that a reader should know before trusting the scores, but for leaks."""
    run = report.run
    found = list(summary.few_clusters(report.clusters))
    if report.attributes is not None:
        found += [
            f"The CCC of {each.name} is undefined in {quantity(each.undefined, 'draw')} of the "
            "bootstrap, which are left out of its interval."
            for each in report.attributes.attributes
            if each.undefined
        ]
    if report.votes is not None and report.votes.clipped:
        found.append(
            f"{quantity(report.votes.clipped, 'row')} with votes for a class of probability 0: it "
            "counts as 1e-12 in logarithms."
        )
    if run.dropped:
        found.append(
            f"{len(run.dropped):,} of {quantity(run.utterances + len(run.dropped), 'utterance')} "
            "have no features in some slot: they are left out of training and scores."
        )
    return [*found, *(head.get("warnings") or ()), *(report.card.get("warnings") or ())]


def _decimals(value: float | None) -> str:
    """Two decimals, for values on a scale of several points."""
    return NONE_KNOWN if value is None else f"{value:.2f}"


def _scale_span(interval: ConfidenceInterval | None) -> str:
    return f"{interval.low:.2f} – {interval.high:.2f}" if interval else NONE_KNOWN


_TEMPLATES = page_environment(
    TEMPLATES,
    **HELPERS,
    TITLES=TITLES,
    target_figures=figures,
    parts=parts,
    headlines=_headlines,
    policies=_policies,
    target_warnings=_warnings,
    decimals=_decimals,
    scale_span=_scale_span,
)
