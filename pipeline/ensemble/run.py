"""Writes the run folder of an ensemble, `runs/ensemble/<corpus>/<name>/`.

It is that of a training of one seed, 0, since the seeds of the members are averaged; the files of a
fold are predictions.csv, a history.csv without epochs, and members.csv with the test predictions of
each member by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import ParamsError, RunError
from features.files.csv_text import write_csv
from features.files.records import write_json
from features.files.writing import remove_folder
from pipeline.ensemble.members import Member, read_member
from pipeline.ensemble.methods import (
    Combined,
    Ints,
    Validation,
    likeliest,
    mean,
    on_test,
    on_validation,
    weighted_mean,
)
from pipeline.ensemble.rows import FoldRows, check_alike, dropped_by_any, fold_rows
from pipeline.ensemble.search import search
from pipeline.metrics.classes import confusion, scores
from pipeline.params.ensembles import EnsembleEntry
from pipeline.runs.layout import FORMAT, MEMBERS, PREDICTIONS, Columns, digests
from pipeline.runs.tables import cells
from pipeline.runtime.environment import environment

KIND = "ensemble"
SEED = 0
_TRUTH = ("t_", "y_")  # columns that are not predicted


def combine(
    entry: EnsembleEntry, corpus: str, leaks: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Combine the members of an ensemble into its run folder.

    Args:
        entry: The ensemble.
        corpus: Corpus of the members' runs.
        leaks: Leaks of the corpus (`features.corpus.leak_gate.check_leaks`).

    Returns:
        The run folder, and its leaks: those of the corpus and of all members.

    Raises:
        HeronryError: If a member is missing or damaged, members differ in classes, targets or rows,
            or the method does not fit what they learn.
    """
    out = Path("runs", "ensemble", corpus, entry.name)
    remove_folder(out)
    members = [read_member(name, corpus) for name in entry.members]
    check_alike(members)
    _check_method(entry, members)
    folds = [fold_rows(members, fold) for fold in range(members[0].run.folds)]
    weights = [_chosen(entry, rows) for rows in folds]
    for rows, of in zip(folds, weights, strict=True):
        _write_fold(out / f"seed_{SEED}" / f"fold_{rows.fold}", entry, members, rows, of)
    record = _record(entry, corpus, members, folds, weights)
    write_json(out / "run.json", record | {"files": digests(out)})
    return out, _inherited(leaks, members)


def _check_method(entry: EnsembleEntry, members: Sequence[Member]) -> None:
    """Refuse a method that does not fit what the members give."""
    first, run = members[0], members[0].run
    without = [each.name for each in members if not each.run.with_probabilities]
    if without and entry.method != "vote":
        raise RunError(
            f"ensembles.{entry.name}: {', '.join(without)} give no probabilities; expected method "
            f"vote, given {entry.method}"
        )
    if run.targets.classes_alone or (entry.method, entry.search) == ("mean", "none"):
        return
    raise RunError(
        f"ensembles.{entry.name}: {first.name} learns {list(run.targets.tasks)}, given method "
        f"{entry.method} and search {entry.search}; expected method mean and search none, since "
        "vote, stacking and search are for runs that learn classes alone"
    )


def _validation(rows: FoldRows) -> Validation:
    """The validation rows alone: what search and stacking are given."""
    valid = ~rows.test
    speakers = [fact[0] for fact, kept in zip(rows.facts, valid, strict=True) if kept]
    return Validation(rows.probabilities[:, valid], rows.labels[valid], speakers)


def _chosen(entry: EnsembleEntry, rows: FoldRows) -> Ints:
    """How often each member counts in a fold."""
    valid = _validation(rows)
    if entry.search == "none" and entry.method != "stacking":
        return search("none", len(entry.members), entry.most, lambda _: 0.0)
    if not len(valid.labels):
        raise ParamsError(
            f"ensembles.{entry.name}: fold {rows.fold} has no validation rows; expected some for "
            f"method {entry.method} and search {entry.search}"
        )

    def score(weights: Ints) -> float:
        return _score(entry.metric, valid, on_validation(entry.method, valid, weights))

    return search(entry.search, len(entry.members), entry.most, score)


def _score(metric: str, valid: Validation, found: Combined) -> float:
    classes = valid.probabilities.shape[-1]
    matrix = confusion(valid.labels, found.predictions, classes, abstains=True)
    return float(scores(matrix)[metric])


def _write_fold(
    folder: Path, entry: EnsembleEntry, members: Sequence[Member], rows: FoldRows, weights: Ints
) -> None:
    """Write the files of a fold."""
    run = members[0].run
    columns, classes = run.targets.columns, run.classes
    folder.mkdir(parents=True)
    predictions, numbers = _predicted(entry, rows, weights, columns)
    header = [name for name in columns.predictions if name not in PREDICTIONS]
    written = zip(*(cells(numbers[name]) for name in header), strict=True)
    write_csv(
        folder / "predictions.csv",
        columns.predictions,
        (
            [id, *fact[:3], rows.fold, SEED, fact[3], classes[k] if classes else "", *values]
            for id, fact, k, values in zip(rows.ids, rows.facts, predictions, written, strict=True)
        ),
    )
    write_csv(folder / "history.csv", columns.history, [])
    if run.targets.classes_alone:
        own, names = likeliest(rows.probabilities), (*classes, "")  # -1, no class, is the last
        write_csv(
            folder / "members.csv",
            MEMBERS,
            (
                [rows.ids[row], member.name, rows.facts[row][3], names[own[at, row]]]
                for at, member in enumerate(members)
                for row in np.flatnonzero(rows.test)
            ),
        )


def _predicted(
    entry: EnsembleEntry, rows: FoldRows, weights: Ints, columns: Columns
) -> tuple[Ints, dict[str, Any]]:
    """Predicted classes `[N]`, and the columns of numbers `[N]` by name."""
    numbers = {
        name: values[0] if name.startswith(_TRUTH) else weighted_mean(values, weights)
        for name, values in rows.numbers.items()
    }
    if not columns.classes:
        return np.full(len(rows.ids), -1, np.int64), numbers
    if not columns.classes_alone:
        return mean(rows.probabilities, weights).predictions, numbers
    valid = _validation(rows)
    found = {
        False: on_validation(entry.method, valid, weights),
        True: on_test(entry.method, valid, rows.probabilities[:, rows.test], weights),
    }
    predictions = np.zeros(len(rows.ids), np.int64)
    probabilities = np.zeros(rows.probabilities.shape[1:])
    for test, part in found.items():
        predictions[rows.test == test] = part.predictions
        probabilities[rows.test == test] = part.probabilities
    return predictions, {f"p_{name}": probabilities[:, k] for k, name in enumerate(columns.classes)}


def _record(
    entry: EnsembleEntry,
    corpus: str,
    members: Sequence[Member],
    folds: Sequence[FoldRows],
    weights: Sequence[Ints],
) -> dict[str, Any]:
    """run.json without the hashes of files."""
    first, dropped = members[0], dropped_by_any(members)
    args = {key: value for key, value in asdict(entry).items() if key != "name"}
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": first.head["version"],
        "regime": "ensemble",
        "corpus": corpus,
        "fusion": entry.name,
        "kind": KIND,
        "classes": list(first.run.classes),
        "slots": {},
        "seeds": [SEED],
        "folds": first.run.folds,
        "args": args | {"members": list(entry.members)},
        "train": {},
        "utterances": first.run.utterances + len(first.run.dropped) - len(dropped),
        "dropped": dropped,
    }
    if first.head.get("targets"):
        counted = ("skipped_batches", "clipped")  # of trainings
        kept = {key: of for key, of in first.head["targets"].items() if key not in counted}
        record["targets"] = kept
    record["members"] = {
        member.name: {
            "seeds": list(member.run.seeds),
            "parameters": member.run.parameters,
            "weights": [int(of[at]) for of in weights],
            **({"valid": _own_score(entry, folds, at)} if first.run.targets.classes_alone else {}),
        }
        for at, member in enumerate(members)
    }
    warnings = [line for rows in folds for line in _warnings(entry, first, rows)]
    record |= {"warnings": warnings} if warnings else {}
    used = [m for at, m in enumerate(members) if any(of[at] for of in weights)]
    return record | {
        "parameters": sum(each.run.parameters * len(each.run.seeds) for each in used),
        "train_seconds": round(sum(each.run.train_seconds for each in used), 1),
        "environment": environment("cpu"),
    }


def _own_score(entry: EnsembleEntry, folds: Sequence[FoldRows], member: int) -> float:
    """Score of a member's validation rows by the metric that chooses members, mean over folds."""
    found = []
    for rows in folds:
        valid = _validation(rows)
        own = valid.probabilities[member]
        found.append(_score(entry.metric, valid, Combined(likeliest(own), own)))
    return round(float(np.mean(found)), 6)


def _warnings(entry: EnsembleEntry, first: Member, rows: FoldRows) -> list[str]:
    present = set(_validation(rows).labels.tolist())
    lacking = [name for k, name in enumerate(first.run.classes) if k not in present]
    if entry.method != "stacking" or not lacking:
        return []
    of = f" of fold {rows.fold}" if first.run.folds > 1 else ""
    return [
        f"Stacking never predicts {', '.join(lacking)}: no validation row{of} has such a label."
    ]


def _inherited(leaks: Mapping[str, Any], members: Sequence[Member]) -> dict[str, Any]:
    """Leaks of the corpus and of all members, each once."""
    all_leaks = [leaks, *(member.leaks for member in members if member.leaks)]
    joined = dict(leaks)
    for key in ("allowed", "found", "lines"):
        joined[key] = []
        for of in all_leaks:
            joined[key] += [each for each in of[key] if each not in joined[key]]
    return joined
