"""The report as one HTML page, a template for each section (`templates/<id>.html`).

Templates read the `Report` itself; what they cannot compute comes from functions of the modules
that `_TEMPLATES` gives them, such as `figures.curves`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.evaluation import calibration, groups, statistics
from pipeline.evaluation.groups import UtteranceGroup
from pipeline.evaluation.layers import CHOOSES, mixed_slots
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html import plots
from pipeline.html.format import duration, number
from pipeline.html.pages import page_environment
from pipeline.report import answers, clips, corpus, figures, settings, sources, summary
from pipeline.report.model_card import NAME as MODEL_CARD
from pipeline.report.records import Report
from pipeline.runs.head import read_head, stand_ins

SECTIONS = {
    "summary": "Summary",
    "members": "Members",
    "scores": "Scores",
    "answers": "Questions and answers",
    "curves": "Training curves",
    "classes": "Classes and confusion",
    "calibration": "Calibration",
    "groups": "Groups and gaps",
    "robustness": "Robustness",
    "layers": "Layers",
    "errors": "Worst errors",
    "settings": "Model and training",
    "seeds": "Seeds and folds",
    "neutral": "Lexically neutral utterances",
    "slots": "Slots",
    "data": "Data",
    "dropped": "Utterances left out",
    "machine": "Machine and commit",
}
"""Title by id of each section, in order."""
FOLDED = ("seeds", "neutral", "slots", "data", "dropped", "machine")
"""Sections that open on a click; the summary has what is wrong in them."""
_OF_FEATURES = ("curves", "robustness", "slots")
"""Sections about epochs and features, which ensembles and models that answer in words lack."""
_NEUTRAL = {"lexical": "neutral", "words": "ambiguous", "text_probe": "neutral"}
"""Name of the lexically neutral group by field, in order of preference."""


def page(report: Report, *, experiment: str | None = None) -> str:
    """The page; equal reports of equal run folders give equal bytes.

    Besides the report it reads the run folder's leaks.json and run.json, and the clips of the worst
    errors where the corpus is available.

    Args:
        report: The report.
        experiment: Name of the DVC experiment that makes the page; None outside of one.
    """
    title = f"{report.run.fusion} on {report.run.corpus}"
    whole = _TEMPLATES.get_template("report.html")
    view = view_of(report)
    shown = sections_of(report.run, view["head"], SECTIONS)
    names = {"title": title, "sections": shown, "folded": FOLDED, "experiment": experiment}
    return whole.render(names | view)


def sections_of(
    run: RunFolder, head: Mapping[str, Any], sections: Mapping[str, str]
) -> dict[str, str]:
    """Title by id of the sections that a run has something to say in.

    Args:
        run: The run; an ensemble has members in place of slots.
        head: Its run.json.
        sections: All sections.
    """
    answers = head.get("answers") is not None
    without = set(_OF_FEATURES if answers or run.members else ())
    without |= set() if answers else {"answers"}
    without |= set() if run.with_probabilities else {"calibration"}
    without |= set() if run.members else {"members"}
    without |= set() if run.jobs[0].layers or run.jobs[0].mixes else {"layers"}
    return {id: title for id, title in sections.items() if id not in without}


def view_of(report: Report) -> dict[str, Any]:
    """Names that the templates read: the report, its parts, run.json (`head`) and leaks."""
    run, card = report.run, report.card
    view = {"report": report, "run": run, "card": card, "curves": report.curves}
    return view | {"head": read_head(run.path), "leaks": corpus.Leaks.of(run, card)}


def section(id: str, **view: object) -> Markup:
    """Content of one section.

    Args:
        id: Key of `SECTIONS`, or "leak_warning".
        view: Result of `view_of`, or as much of it as the section reads.
    """
    return Markup(_TEMPLATES.get_template(f"{id}.html").render(view))


def _mean_sd(values: Iterable[float]) -> str:
    """Mean and standard deviation over seeds."""
    array = np.array(list(values))
    return f"{number(float(array.mean()))} ± {number(float(array.std(ddof=1)))}"


def _neutral_group(report: Report) -> UtteranceGroup | None:
    """The lexically neutral utterances; None where they are unknown, or there are none."""
    found = {grouping.field: grouping for grouping in report.groupings}
    for field, name in _NEUTRAL.items():
        if field in found:
            return next((group for group in found[field].groups if group.name == name), None)
    return None


TEMPLATES = Path(__file__).parent / "templates"
HELPERS: dict[str, object] = {
    "CHOOSES": CHOOSES,
    "MODEL_CARD": MODEL_CARD,
    "answers": answers,
    "as_json": partial(json.dumps, ensure_ascii=False),
    "calibration": calibration,
    "clips": clips,
    "corpus": corpus,
    "figures": figures,
    "groups": groups,
    "mixed_slots": mixed_slots,
    "mean_sd": _mean_sd,
    "neutral_group": _neutral_group,
    "plots": plots,
    "duration": duration,
    "settings": settings,
    "sources": sources,
    "stand_ins": stand_ins,
    "statistics": statistics,
    "summary": summary,
}
"""What the templates of sections call, by name."""
_TEMPLATES = page_environment(TEMPLATES, **HELPERS)
