"""Reads a run folder, `runs/<regime>/<corpus>/<fusion>/`, and believes nothing in it unchecked.

Layout and columns: docs/design.md. Legend: N rows of predictions, E epochs, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.records import read_json
from pipeline.run_extras import Guesses, check_alike, read_conditions, read_probes
from pipeline.tables import AGAIN, RunError, Table, read_csv

__all__ = ["HISTORY", "PREDICTIONS", "Job", "RunError", "RunFolder", "Table"]

FORMAT, VERSION = "heronry-run", 1
HISTORY = (
    *("seed", "fold", "epoch", "lr", "train_loss", "valid_loss", "valid_accuracy", "valid_uar"),
    *("valid_macro_f1", "valid_weighted_f1", "best"),
)
PREDICTIONS = ("id", "speaker", "dialogue", "split", "fold", "seed", "label", "prediction")
SCORED = ("valid", "test")

_NUMBER = (int, float)
_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("regime", "corpus", "fusion", "kind"), str),
    **dict.fromkeys(("slots", "args", "train", "dropped"), dict),
    **dict.fromkeys(("classes", "seeds"), list),
    **dict.fromkeys(("folds", "parameters", "utterances"), int),
    "train_seconds": _NUMBER,
}


@dataclass(frozen=True)
class Job:
    """What one (seed, fold) left behind.

    Attributes:
        seed: Of the random generators.
        fold: From 0.
        labels: `[N]` true classes as indices.
        predictions: `[N]` predicted classes as indices.
        probabilities: `[N, K]` as written, so that a row may miss a sum of 1 by rounding.
        test: `[N]` bool, True for the rows of the test split (the others are of the valid split).
        table: predictions.csv; a row for each of N.
        history: history.csv; a row for each of E epochs, none for what is not trained in epochs.
        probes: By slot: what a linear probe on it alone predicts for each test row.
        conditions: By condition: what the model predicts under it for each test row.
    """

    seed: int
    fold: int
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    test: NDArray[np.bool_]
    table: Table
    history: Table
    probes: Guesses
    conditions: Guesses


@dataclass(frozen=True)
class RunFolder:
    """A run: the fields of run.json, and its jobs in order of (seed, fold)."""

    path: Path
    regime: str
    corpus: str
    fusion: str
    kind: str
    classes: tuple[str, ...]
    slots: Mapping[str, Mapping[str, Any] | None]
    seeds: tuple[int, ...]
    folds: int
    args: Mapping[str, Any]
    train: Mapping[str, Any]
    parameters: int
    utterances: int
    dropped: Mapping[str, str]
    train_seconds: float
    jobs: tuple[Job, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a run folder.

        Raises:
            ManifestError: If run.json is missing or is no JSON object.
            RunError: If anything else is missing or wrong, naming file, line and remedy.
        """
        head = read_json(path / "run.json")
        _check_head(head, path / "run.json")
        classes, seeds = tuple(head["classes"]), tuple(sorted(head["seeds"]))
        jobs = [_job(path, (s, f), seeds, classes) for s in seeds for f in range(head["folds"])]
        check_alike(path, "probes", (list(job.probes) for job in jobs))
        check_alike(path, "conditions", (list(job.conditions) for job in jobs))
        fields = {name: head[name] for name in _FIELDS}
        fields |= {"path": path, "classes": classes, "seeds": seeds, "jobs": tuple(jobs)}
        return cls(**fields)


def _check_head(head: Mapping[str, Any], path: Path) -> None:
    def expect(holds: object, found: object, expected: str) -> None:
        if not holds:
            raise RunError(f"{path}: found {found}; expected {expected}: {AGAIN}")

    identity = (head.get("format"), head.get("version"))
    expect(identity == (FORMAT, VERSION), identity, f"format and version {(FORMAT, VERSION)}")
    for name, kind in _FIELDS.items():
        expect(name in head, "no " + name, "all of " + ", ".join(_FIELDS))
        value = head[name]
        right = isinstance(value, kind) and not isinstance(value, bool)
        expect(right, f"{name} {value!r}", f"it as {kind}")
    for name, kind, least in (("classes", str, 2), ("seeds", int, 1)):
        value = head[name]
        right = all(isinstance(entry, kind) for entry in value) and len(value) >= least
        expect(
            right and len(set(value)) == len(value),
            f"{name} {value!r}",
            f"{least} or more, each once, as {kind}",
        )
    expect(head["folds"] >= 1, f"{head['folds']} folds", "1 or more")
    for slot, entry in head["slots"].items():
        expect(entry is None or isinstance(entry, dict), f"slot {slot} {entry!r}", "object or null")


def _job(run: Path, key: tuple[int, int], seeds: Sequence[int], classes: Sequence[str]) -> Job:
    folder, *others = (run / f"seed_{seed}" / f"fold_{key[1]}" for seed in (key[0], *seeds))
    table = read_csv(folder / "predictions.csv", (*PREDICTIONS, *(f"p_{k}" for k in classes)))
    history = read_csv(folder / "history.csv", HISTORY)
    for each in (table, history):
        for name, number in zip(("seed", "fold"), key, strict=True):
            each.only(name, (str(number),))
    table.only("split", SCORED)
    _check_ids(table)
    probabilities = table.probabilities(classes)
    _check_history(history)
    test = np.array([split == "test" for split in table.column("split")], bool)
    if not test.any():
        raise RunError(f"{table.path}: no rows of the test split; expected some: {AGAIN}")
    pairs = zip(table.column("id"), table.column("label"), test, strict=True)
    tested = {id: label for id, label, is_test in pairs if is_test}
    return Job(
        *key,
        labels=table.indices("label", classes),
        predictions=table.indices("prediction", classes),
        probabilities=probabilities,
        test=test,
        table=table,
        history=history,
        probes=read_probes((folder, *others), tested, classes),
        conditions=read_conditions(folder, tested, classes),
    )


def _check_ids(table: Table) -> None:
    seen: set[str] = set()
    for index, id in enumerate(table.column("id")):
        if id in seen:
            table.refuse(index, f"id {id!r} a second time; expected each once")
        seen.add(id)


def _check_history(table: Table) -> None:
    for name in table.header:
        table.numbers(name)
    table.only("best", ("0", "1"))
    kept = table.column("best").count("1")
    if table.rows and kept != 1:
        raise RunError(f"{table.path}: {kept} epochs are marked best; expected one: {AGAIN}")
