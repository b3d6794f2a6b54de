"""From a run folder and the labels it was trained on to a `Report`, and to the files of reports/.

For every seed the test predictions of all folds are pooled and scored; the report gives the mean
over seeds, its 95 % interval over speakers (pipeline.statistics) and the standard deviation over
seeds. Folds are pooled, not averaged, since a fold of few utterances may lack classes.

Legend: S seeds, C clusters (speakers), K classes.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.manifest import Label, read_labels
from features.records import read_json, write_json
from pipeline.metrics import (
    MONITORS,
    Counts,
    Floats,
    Matrices,
    confusion,
    f1_names,
    per_class,
    scores,
)
from pipeline.report_page import page
from pipeline.runs import Job, RunError, RunFolder, Table
from pipeline.statistics import Interval, bootstrap, cluster_confusions

DECIMALS = 6


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes:
        run: What was read.
        card: card.json of the corpus.
        metrics: Content of metrics.json.
        f1_names: Key in `metrics` of the F1 of each class.
        intervals: 95 % intervals of the seed-means by key in `metrics`; empty for one speaker.
        confusions: `[S, K, K]` counts of the test rows of all folds, true classes in rows.
        job_confusions: `[S * folds, K, K]`, the same for each job of `run.jobs`.
        speakers: C, the speakers of the test rows.
        left_out: Test utterances without a prediction, as some slot has no features of them.
    """

    run: RunFolder
    card: Mapping[str, Any]
    metrics: Mapping[str, float]
    f1_names: tuple[str, ...]
    intervals: Mapping[str, Interval]
    confusions: Counts
    job_confusions: Counts
    speakers: int
    left_out: int


def evaluate(run_folder: Path, labels_folder: Path) -> Report:
    """Score a run.

    Args:
        run_folder: `runs/<regime>/<corpus>/<fusion>`.
        labels_folder: `data/<corpus>/labels`.

    Raises:
        RunError: If the run is malformed, or was not trained on these labels.
        ManifestError: If run.json or the labels cannot be read.
    """
    run = RunFolder.read(run_folder)
    card, labels = read_json(labels_folder / "card.json"), read_labels(labels_folder)
    if card.get("classes") != list(run.classes):
        raise RunError(
            f"{labels_folder / 'card.json'}: classes {card.get('classes')}; expected those of "
            f"{run_folder / 'run.json'}, {list(run.classes)}: run `dvc repro` to train again"
        )
    _check_labels(run, labels)
    matrices = _test_confusions(run)
    names = f1_names(run.classes)

    def statistic(of: Matrices) -> dict[str, Floats]:
        return scores(of) | dict(zip(names, np.moveaxis(per_class(of).f1, -1, 0), strict=True))

    intervals = bootstrap(matrices, statistic)
    confusions = matrices.sum(1)
    metrics = _seed_metrics(statistic(confusions), intervals) | _baselines(run, labels)
    per_job = [confusion(j.labels[j.test], j.predictions[j.test], len(names)) for j in run.jobs]
    return Report(
        run=run,
        card=card,
        metrics=metrics | _facts(run, confusions),
        f1_names=names,
        intervals=intervals,
        confusions=confusions,
        job_confusions=np.stack(per_job),
        speakers=matrices.shape[1],
        left_out=sum(label.id in run.dropped and "test" in label.splits for label in labels),
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write metrics.json, the CSV files and index.html into `folder`; returns the page's path.

    The same run and labels give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = report.run.jobs
    write_json(folder / "metrics.json", report.metrics)
    _write_joined(folder / "predictions.csv", [job.table for job in jobs])
    _write_joined(folder / "history.csv", [job.history for job in jobs])
    names = report.run.classes
    pairs = (
        (names[label], names[prediction])
        for job in jobs
        for label, prediction in zip(job.labels[job.test], job.predictions[job.test], strict=True)
    )
    _write_csv(folder / "confusion.csv", ("label", "prediction"), pairs)
    path = folder / "index.html"
    path.write_text(page(report), encoding="utf-8")
    return path


def headline(metrics: Mapping[str, float]) -> str:
    """The main metrics of metrics.json as a plain-text table, without a final line break."""
    lines = [f"{'test split':<12} {'score':>6}  {'95 % interval':<14}  {'sd':>6}  {'majority':>8}"]
    for name in MONITORS:
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = "-" if low is None or high is None else f"{low:.3f} - {high:.3f}"
        sd, majority = (metrics.get(key) for key in (f"{name}_sd", f"majority_{name}"))
        lines.append(
            f"{name:<12} {metrics[name]:>6.3f}  {interval:<14}  {_or_dash(sd):>6}  "
            f"{_or_dash(majority):>8}"
        )
    return "\n".join(lines)


def _check_labels(run: RunFolder, labels: Sequence[Label]) -> None:
    known = {label.id: label for label in labels}
    for job in run.jobs:
        table = job.table
        facts = ("id", "speaker", "split", "label")
        for index, (id, *found) in enumerate(zip(*map(table.column, facts), strict=True)):
            if id not in known:
                table.refuse(index, f"id {id!r} is not in labels.jsonl of {run.corpus}")
            label = known[id]
            expected = [label.speaker, *label.splits[job.fold : job.fold + 1], label.label]
            if found != expected:
                table.refuse(
                    index, f"speaker, split, label of {id!r} are {found}; labels.jsonl: {expected}"
                )
        missing = _split_ids(run, labels, job, "test") - set(table.column("id"))
        if missing:
            raise RunError(
                f"{table.path}: {len(missing)} test utterances are neither predicted nor listed "
                f"as dropped in run.json, such as {sorted(missing)[:5]}; expected every one of "
                "them: run `dvc repro` to train it again"
            )


def _split_ids(run: RunFolder, labels: Iterable[Label], job: Job, split: str) -> set[str]:
    fold = slice(job.fold, job.fold + 1)
    in_split = {label.id for label in labels if label.splits[fold] == (split,)}
    return in_split - run.dropped.keys()


def _test_confusions(run: RunFolder) -> Counts:
    """`[S, C, K, K]` of the test rows of all folds."""
    rank = {seed: index for index, seed in enumerate(run.seeds)}
    names = [np.array(job.table.column("speaker"))[job.test] for job in run.jobs]
    return cluster_confusions(
        np.concatenate(names).tolist(),
        np.concatenate([np.full(job.test.sum(), rank[job.seed]) for job in run.jobs]),
        np.concatenate([job.labels[job.test] for job in run.jobs]),
        np.concatenate([job.predictions[job.test] for job in run.jobs]),
        len(run.classes),
    )


def _seed_metrics(
    values: Mapping[str, Floats], intervals: Mapping[str, Interval]
) -> dict[str, float]:
    """Mean over seeds; for the summaries also interval and spread, for which classes are many."""
    found: dict[str, float] = {}
    for name, value in values.items():
        found[name] = _rounded(value.mean())
        if name.startswith("f1_"):
            continue
        if name in intervals:
            found[f"{name}_low"] = _rounded(intervals[name].low)
            found[f"{name}_high"] = _rounded(intervals[name].high)
        if len(value) > 1:
            found[f"{name}_sd"] = _rounded(value.std(ddof=1))
    return found


def _baselines(run: RunFolder, labels: Sequence[Label]) -> dict[str, float]:
    """Scores of predicting each fold's most frequent training class, the first if several are."""
    size = len(run.classes)
    total = np.zeros((size, size), np.int64)
    for job in run.jobs[: run.folds]:
        train = _split_ids(run, labels, job, "train")
        counts = Counter(label.label for label in labels if label.id in train)
        if not counts:
            raise RunError(
                f"labels of {run.corpus}: no training utterances in fold {job.fold}; expected "
                "some, for the majority baseline: run `dvc repro` to prepare and train again"
            )
        majority = max(range(size), key=lambda k: counts[run.classes[k]])
        truth = job.labels[job.test]
        total += confusion(truth, np.full_like(truth, majority), size)
    found = {f"majority_{name}": _rounded(scores(total)[name]) for name in MONITORS}
    return found | {"chance_uar": _rounded(1 / size)}


def _facts(run: RunFolder, confusions: Counts) -> dict[str, float]:
    return {
        "parameters": run.parameters,
        "utterances": int(confusions[0].sum()),
        "dropped": len(run.dropped),
        "seeds": len(run.seeds),
        "folds": run.folds,
        "train_seconds": run.train_seconds,
    }


def _write_joined(path: Path, tables: Sequence[Table]) -> None:
    _write_csv(path, tables[0].header, (row for table in tables for row in table.rows))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _rounded(value: Any) -> float:
    return round(float(value), DECIMALS)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
