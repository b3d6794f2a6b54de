"""The report as one HTML page, a template for each section (`templates/<id>.html`).

Templates read the `Report` itself; what they cannot compute comes from the functions in
`_TEMPLATES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from features.corpus.label_checks import lacking_classes, lacking_lines
from pipeline.evaluation.calibration import BINS, BOUNDS
from pipeline.evaluation.groups import MINIMUM_SPEAKERS, MINIMUM_UTTERANCES, UtteranceGroup
from pipeline.evaluation.statistics import DRAWS, FEW_CLUSTERS
from pipeline.html.format import number, shared_speakers_note
from pipeline.html.pages import page_environment
from pipeline.html.plots import SERIES
from pipeline.report.clips import clips_of
from pipeline.report.corpus import LISTED, Leaks, audio_facts, label_counts
from pipeline.report.figures import (
    as_predicted,
    confusion_plots,
    confusion_texts,
    curves,
    monitor_shown,
    reliability_plots,
    speaker_plot,
)
from pipeline.report.model_card import NAME as MODEL_CARD
from pipeline.report.records import Report
from pipeline.report.sources import (
    cache_hash,
    dropped_by_reason,
    features_shape,
    machine_facts,
    noticed_by_reason,
    noticed_in,
)
from pipeline.runs.head import read_head

SECTIONS = {
    "scores": "Scores",
    "curves": "Training curves",
    "confusion": "Confusion",
    "classes": "Classes",
    "seeds": "Seeds and folds",
    "calibration": "Calibration",
    "groups": "Groups and gaps",
    "robustness": "Robustness",
    "neutral": "Lexically neutral utterances",
    "errors": "Worst errors",
    "slots": "Slots",
    "data": "Data",
    "dropped": "Dropped utterances",
    "settings": "Model and training",
    "machine": "Machine and commit",
}
"""Title by id of each section, in order."""
_NEUTRAL = {"lexical": "neutral", "words": "ambiguous", "text_probe": "neutral"}
"""Name of the lexically neutral group by field, in order of preference."""


def page(report: Report) -> str:
    """The page; equal reports of equal run folders give equal bytes.

    Besides the report it reads the run folder's leaks.json and run.json, and the clips of the worst
    errors where the corpus is available.
    """
    title = f"{report.run.fusion} on {report.run.corpus}"
    whole = _TEMPLATES.get_template("report.html")
    return whole.render(title=title, sections=SECTIONS, **view_of(report))


def view_of(report: Report) -> dict[str, Any]:
    """Names that the templates read."""
    run, card = report.run, report.card
    head, leaks = read_head(run.path), Leaks.of(run, card)
    return {"report": report, "run": run, "card": card, "head": head, "leaks": leaks}


def section(id: str, **view: object) -> Markup:
    """Content of one section.

    Args:
        id: Key of `SECTIONS`.
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


_TEMPLATES = page_environment(
    Path(__file__).parent / "templates",
    BINS=BINS,
    BOUNDS=BOUNDS,
    DRAWS=DRAWS,
    FEW_CLUSTERS=FEW_CLUSTERS,
    LISTED=LISTED,
    MINIMUM_SPEAKERS=MINIMUM_SPEAKERS,
    MINIMUM_UTTERANCES=MINIMUM_UTTERANCES,
    MODEL_CARD=MODEL_CARD,
    SERIES=SERIES,
    as_json=partial(json.dumps, ensure_ascii=False),
    as_predicted=as_predicted,
    audio_facts=audio_facts,
    cache_hash=cache_hash,
    clips_of=clips_of,
    confusion_plots=confusion_plots,
    confusion_texts=confusion_texts,
    curves=curves,
    dropped_by_reason=dropped_by_reason,
    features_shape=features_shape,
    label_counts=label_counts,
    lacking_classes=lacking_classes,
    lacking_lines=lacking_lines,
    machine_facts=machine_facts,
    mean_sd=_mean_sd,
    monitor_shown=monitor_shown,
    neutral_group=_neutral_group,
    noticed_by_reason=noticed_by_reason,
    noticed_in=noticed_in,
    reliability_plots=reliability_plots,
    shared_speakers_note=shared_speakers_note,
    speaker_plot=speaker_plot,
)
