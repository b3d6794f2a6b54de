"""Score models trained on shuffled labels: above chance, a leak passed the leak gate.

    python -m benchmarks.shuffled [--corpus demo] [--fusions concat,text] [--seeds 3] [--json]

Labels are permuted among the utterances of each split, so that class counts stay, and nothing that
a model can learn says anything about the test split. Training, selection and scoring are those of
any run, below runs/shuffled. Features must be there: run the experiment once before.

Since the test labels are a random permutation, p is exact: the share of other permutations of them
within their fold under which the same predictions score as high a UAR (mean over seeds) or a higher
one. Below 0.01 something leaks; one row in a hundred says so by accident.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from features.corpus.labels_folder import CARD, LABELS, read_labelled
from features.corpus.manifest import Label
from features.files.reading import file_sha256
from features.files.records import write_json, write_rows
from features.files.yaml_text import read_params_file
from features.settings.locations import device
from pipeline.cached.run import train_model
from pipeline.evaluation.run_folder import RunFolder
from pipeline.metrics.classes import confusion, uar
from pipeline.params.catalogue.entries import with_catalogue
from pipeline.params.file import Params
from pipeline.report.evaluate import evaluate

WORK = Path("runs", "shuffled")
SEED = 0
PERMUTATIONS = 1999
ALPHA = 0.01


def main(
    *,
    corpus: str = "demo",
    fusions: Annotated[str, typer.Option(help="Entries of models.")] = "concat,text",
    seeds: Annotated[int, typer.Option(help="Of each fusion.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train on shuffled labels and say whether the score is chance."""
    params = Params(**with_catalogue(read_params_file(Path("params.yaml"))))
    params = dataclasses.replace(params, seeds=seeds, corpus=corpus)
    _set_up(corpus)
    here = Path.cwd()
    os.chdir(WORK)
    rows = {name: _row(params, name) for name in fusions.split(",")}
    os.chdir(here)
    if as_json:
        print(json.dumps({"corpus": corpus, "seeds": seeds, "fusions": rows}))
    for name, row in () if as_json else rows.items():
        verdict = "chance" if row["at_chance"] else "NOT chance"
        print(
            f"{name:12} UAR {row['uar']:.3f}, 1/K {row['chance_uar']:.3f}, "
            f"p {row['p']:.4f}: {verdict}"
        )
    if not all(row["at_chance"] for row in rows.values()):
        raise SystemExit(1)


def shuffled(labels: Sequence[Label], seed: int) -> list[Label]:
    """The same utterances with classes permuted among those that share all their splits."""
    generator = np.random.default_rng(seed)
    found = list(labels)
    for splits in sorted({label.splits for label in labels}):
        places = [place for place, label in enumerate(labels) if label.splits == splits]
        for place, other in zip(places, generator.permutation(places), strict=True):
            found[place] = dataclasses.replace(labels[place], label=labels[other].label)
    return found


def _set_up(corpus: str) -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    source, folder = Path("data", corpus, "labels"), WORK / "data" / corpus / "labels"
    folder.mkdir(parents=True)
    card, labels = read_labelled(source)
    write_rows(folder / LABELS, shuffled(labels, SEED))
    write_json(folder / CARD, card | {"labels_sha256": file_sha256(folder / LABELS)})
    (WORK / "cache").symlink_to(Path("cache").resolve())


def _row(params: Params, name: str) -> dict[str, Any]:
    run = train_model(params, name, params.corpus, device=device())
    report = evaluate(run, Path("data", params.corpus, "labels"))
    row = {key: report.metrics[key] for key in ("uar", "chance_uar")}
    p = chance_p(report.run)
    return row | {"p": p, "at_chance": p >= ALPHA}


def chance_p(run: RunFolder, permutations: int = PERMUTATIONS) -> float:
    """Share of permutations of the test labels that score no lower, the given one included."""
    generator = np.random.default_rng(SEED)
    size = len(run.classes)
    drawn = np.zeros((len(run.seeds), permutations + 1, size, size), np.int64)
    for fold in range(run.folds):
        jobs = [job for job in run.jobs if job.fold == fold]
        labels = jobs[0].labels[jobs[0].test]  # rows are in the same order for every seed
        for place in range(permutations + 1):
            truth = generator.permutation(labels) if place else labels
            for number, job in enumerate(jobs):
                drawn[number, place] += confusion(truth, job.predictions[job.test], size)
    scores = uar(drawn).mean(0)
    return float((scores >= scores[0] - 1e-12).mean())


if __name__ == "__main__":
    typer.run(main)
