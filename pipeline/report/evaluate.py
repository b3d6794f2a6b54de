"""Scores a run folder against its labels, and writes the files of reports/.

For every seed the test predictions of all folds are pooled and scored; the report gives the mean
over seeds, its 95 % interval over speakers or dialogues (pipeline.evaluation.statistics), the
standard deviation over seeds, and the mean over folds. What is called the score pools the folds,
since a fold of few utterances may lack classes.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.corpus.labels_folder import CARD, read_labelled
from features.corpus.leak_gate import read_leaks
from features.corpus.manifest import Label
from features.corpus.ratings import read_ratings
from features.errors import RunError
from features.files.csv_text import write_csv, write_sheet
from pipeline.evaluation.attributes.scores import attribute_results
from pipeline.evaluation.baselines import baselines
from pipeline.evaluation.calibration import calibrate
from pipeline.evaluation.ceilings import ceilings
from pipeline.evaluation.errors import worst_errors
from pipeline.evaluation.groups import known_groupings, speaker_spread
from pipeline.evaluation.hard_labels import labelled_rows
from pipeline.evaluation.identity import RunIdentity
from pipeline.evaluation.labels import check_card, check_labels, class_counts
from pipeline.evaluation.layers import run_curves
from pipeline.evaluation.lexical import lexical
from pipeline.evaluation.predictions import write_csv_predictions, write_parquet_predictions
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.slots import (
    best_member,
    conditions,
    gains_over_majority,
    members,
    probes,
)
from pipeline.evaluation.summaries import (
    class_scores,
    cluster_scores,
    intervals_of,
    job_confusions,
    job_scores,
    seed_scores,
    summaries,
)
from pipeline.evaluation.votes.scores import vote_results
from pipeline.metrics.classes import row_shares
from pipeline.report.figures import NO_CLASS
from pipeline.report.metrics_json import HEADLINE, UNPARSED, metrics_of, write_numbers
from pipeline.report.page import page
from pipeline.report.records import Report
from pipeline.report.targets.numbers import target_headline, target_metrics
from pipeline.report.targets.page import target_page
from pipeline.report.targets.record import TargetReport


def evaluate(run_folder: Path, labels_folder: Path) -> Report:
    """Score a run that learns classes alone.

    Args:
        run_folder: `runs/<regime>/<corpus>/<fusion>`.
        labels_folder: `data/<corpus>/labels`.

    Raises:
        RunError: If the run is malformed, learns other targets, or was not trained on these labels.
        ManifestError: If run.json or the labels cannot be read.
    """
    report = evaluate_any(run_folder, labels_folder)
    if not isinstance(report, Report):
        tasks = list(report.run.targets.tasks)
        raise RunError(f"{run_folder}: learns {tasks}; expected a run that learns classes alone")
    return report


def evaluate_any(run_folder: Path, labels_folder: Path) -> Report | TargetReport:
    """Score a run, whatever it learns; arguments and errors are those of `evaluate`.

    The ratings beside the labels are read, if there are any, for a run that learns other targets.
    """
    run = RunFolder.read(run_folder)
    read_leaks(run_folder)  # the page reads it again, when other files have been written
    card, labels = read_labelled(labels_folder)
    check_card(run, card, labels_folder / CARD)
    check_labels(run, {label.id: label for label in labels})
    if not run.targets.classes_alone:
        return _target_report(run, card, labels, labels_folder.parent / "ratings")
    # Of a corpus with other targets too, rows without a class are no rows of this run.
    return _with_metrics(run, card, [label for label in labels if label.label is not None])


def write_report(
    report: Report | TargetReport, folder: Path, *, experiment: str | None = None
) -> Path:
    """Write the numbers, the tables and index.html into `folder`; returns the page's path.

    The same run and labels give the same bytes; only the page names the experiment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = report.run.jobs
    tables = [job.table for job in jobs]
    sha256 = write_csv_predictions(folder, tables)
    identity = RunIdentity.of_run(report.run, report.labels, sha256)
    write_parquet_predictions(folder, tables, identity.to_dict())
    classes: Report | None
    if isinstance(report, TargetReport):
        classes, shown = report.classes, target_headline(report)
        text = target_page(report, experiment=experiment)
    else:
        classes, shown = report, (*HEADLINE, UNPARSED)
        text = page(report, experiment=experiment)
    write_numbers(folder, report.metrics, identity, shown)
    history = [row for job in jobs for row in job.history]
    write_csv(folder / "history.csv", jobs[0].history.header, history)
    # `dvc plots show` writes what is in confusion.csv into its page as it is
    names = [*(html.escape(name) for name in report.run.classes), NO_CLASS]  # -1 is the last
    pairs = (
        (names[label], names[prediction])
        for job in (classes.run.jobs if classes else ())
        for label, prediction in zip(job.labels[job.test], job.predictions[job.test], strict=True)
    )
    write_sheet(folder / "confusion.csv", ("label", "prediction"), pairs)
    path = folder / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _with_metrics(run: RunFolder, card: Mapping[str, Any], labels: Sequence[Label]) -> Report:
    report = _report(run, card, labels)
    return dataclasses.replace(report, metrics=metrics_of(report))


def _target_report(
    run: RunFolder, card: Mapping[str, Any], labels: Sequence[Label], ratings: Path
) -> TargetReport:
    rows = RunRows.of(run, {label.id: label for label in labels})
    labelled, names = labelled_rows(run, labels), tuple(run.targets.scales)
    given = read_ratings(ratings) if ratings.is_dir() else []
    learns = run.targets.tasks
    report = TargetReport(
        run=run,
        card=card,
        labels=tuple(labels),
        metrics={},
        clusters=rows.clusters,
        rows=len(rows.utterances),
        speakers=len({label.speaker for label in rows.utterances}),
        classes=_with_metrics(labelled.run, card, labelled.labels) if labelled else None,
        pluralities=labelled.pluralities if labelled else 0,
        attributes=attribute_results(run, rows, labels) if "attributes" in learns else None,
        votes=vote_results(run, rows, labels) if "votes" in learns else None,
        ceilings=ceilings(given, rows.utterances, run.classes, names, card.get("targets") or {})
        if given
        else None,
    )
    return dataclasses.replace(report, metrics=target_metrics(report))


def _report(run: RunFolder, card: Mapping[str, Any], labels: Sequence[Label]) -> Report:
    """The report without `metrics`, which are computed from it."""
    known = {label.id: label for label in labels}
    rows = RunRows.of(run, known)
    confusions, by_job = rows.matrices().sum(1), job_confusions(run)
    intervals = intervals_of(rows)
    calibration = calibrate(run.jobs) if run.with_probabilities else None
    train, test = (class_counts(run, known, split) for split in ("train", "test"))
    words, guesses = lexical(rows, labels), baselines(train, test, run.classes)
    alone = members(rows)
    return Report(
        run=run,
        card=card,
        labels=tuple(labels),
        metrics={},
        intervals=intervals,
        confusions=confusions,
        shares=row_shares(confusions.sum(0)),
        speakers=len({label.speaker for label in rows.utterances}),
        left_out=sum(label.id in run.dropped and "test" in label.splits for label in labels),
        clusters=rows.clusters,
        cluster_scores=cluster_scores(rows),
        summaries=summaries(confusions, by_job, intervals),
        classes=class_scores(run, confusions, intervals),
        seeds=seed_scores(run, confusions, by_job),
        jobs=job_scores(run, by_job, calibration),
        baselines=guesses,
        gains=gains_over_majority(rows, guesses.majority_classes),
        calibration=calibration,
        groupings=(*known_groupings(rows), *words.groupings),
        speaker_spread=speaker_spread(rows),
        errors=worst_errors(rows),
        probes=probes(rows, words.neutral),
        conditions=conditions(rows, words.neutral),
        members=alone,
        best_member=best_member(run, alone),
        curves=run_curves(run, known),
    )
