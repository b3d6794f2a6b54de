"""Reads a run folder, `runs/<regime>/<corpus>/<fusion>/`, and believes nothing in it unchecked.

Layout and columns: docs/design.md. Legend: N rows of predictions, E epochs, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from features.arguments import Record
from features.files import file_sha256
from features.ranges import Amount, Count, Interval, MinLen
from features.records import read_record
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

FILES = ("predictions.csv", "history.csv", "probes.csv", "conditions.csv", "model.json")
"""Of a (seed, fold), whose hashes run.json keeps."""


Name = Annotated[str, MinLen(1)]


@dataclass(frozen=True)
class SlotHead(Record):
    """A filled slot, in run.json."""

    backbone: str
    spec: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class AsrHead(Record):
    """What the condition `asr_text` rests on, in run.json (`pipeline.recognised`)."""

    backbone: str = ""
    tested: int = 0
    recognised: int = 0
    words: int = 0
    word_errors: int = 0
    noticed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunHead:
    """The fields of run.json; runs of older releases may lack those that have a default."""

    format: Literal["heronry-run"]
    version: Literal[1]
    regime: Literal["cached", "e2e"]
    corpus: str
    fusion: str
    kind: str
    classes: Annotated[Sequence[Name], MinLen(2)]
    slots: Mapping[str, SlotHead | None]
    seeds: Annotated[Sequence[int], MinLen(1)]
    folds: Count
    args: Mapping[str, Any]
    train: Mapping[str, Any]
    parameters: Annotated[int, Interval(ge=0, le=10**15)]
    utterances: Amount
    dropped: Mapping[str, str]
    train_seconds: Annotated[float, Interval(ge=0, le=10**10)]
    warnings: Sequence[str] = ()
    noticed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    asr: AsrHead | None = None
    e2e: Mapping[str, Any] = field(default_factory=dict)
    parameters_total: int = 0
    processes: int = 1
    files: Mapping[str, str] = field(default_factory=dict)


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
        head = read_head(path)
        classes, seeds = tuple(head["classes"]), tuple(sorted(head["seeds"]))
        _check_folders(path, seeds, head["folds"])
        jobs = [_job(path, (s, f), seeds, classes) for s in seeds for f in range(head["folds"])]
        check_alike(path, "probes", (list(job.probes) for job in jobs))
        check_alike(path, "conditions", (list(job.conditions) for job in jobs))
        _check_files(path, head.get("files", {}))
        given = {each.name: head[each.name] for each in fields(cls) if each.name in head}
        given |= {"path": path, "classes": classes, "seeds": seeds, "jobs": tuple(jobs)}
        return cls(**given)


def read_head(run: Path) -> dict[str, Any]:
    """Read run.json of a run folder; what it lacks is not filled in.

    Raises:
        ManifestError: If it is missing or is no JSON object.
        RunError: If a field is missing, of another type, or out of its range.
    """
    path = run / "run.json"
    head = read_record(path, RunHead, AGAIN, RunError)
    for name in ("classes", "seeds"):
        if len(set(head[name])) < len(head[name]):
            raise RunError(f"{path}: {name}: given {head[name]}; expected each once: {AGAIN}")
    return head


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of the files of every (seed, fold) of a run folder, for run.json."""
    found = (path for name in FILES for path in run.glob(f"seed_*/fold_*/{name}"))
    return {path.relative_to(run).as_posix(): file_sha256(path) for path in sorted(found)}


def _check_folders(run: Path, seeds: Sequence[int], folds: int) -> None:
    """Refuse a run folder that holds other seeds and folds than run.json names."""
    found = {path.relative_to(run).as_posix() for path in run.glob("seed_*/fold_*")}
    # not more of them are made up than there are folders: run.json may name any number
    named = (f"seed_{seed}/fold_{fold}" for seed in seeds for fold in range(folds))
    first = set(islice(named, len(found) + 1))
    if first != found:
        lacking, more = sorted(first - found), sorted(found - first)
        told = f"{lacking[0]} is not there" if lacking else f"{more[0]} is there too"
        raise RunError(
            f"{run / 'run.json'} names the seeds {list(seeds)} and {folds} folds, and {told}; "
            f"expected a folder for each of them and no others: {AGAIN}"
        )


def _check_files(run: Path, files: Mapping[str, str]) -> None:
    """Refuse files that are not those that training wrote; older runs say nothing of them."""
    if not files:
        return
    found = digests(run)
    for name in sorted(files.keys() | found.keys()):
        if files.get(name) != found.get(name):
            told = "is not there" if name not in found else "is not as training wrote it"
            raise RunError(f"{run / name} {told}; expected the file that run.json names: {AGAIN}")


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
    predictions = table.indices("prediction", classes)
    table.likeliest(probabilities, predictions)
    _check_history(history)
    test = np.array([split == "test" for split in table.column("split")], bool)
    if not test.any():
        raise RunError(f"{table.path}: no rows of the test split; expected some: {AGAIN}")
    pairs = zip(table.column("id"), table.column("label"), test, strict=True)
    tested = {id: label for id, label, is_test in pairs if is_test}
    return Job(
        *key,
        labels=table.indices("label", classes),
        predictions=predictions,
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
    epochs = [str(number) for number, _ in enumerate(table.rows, 1)]
    for index, (found, expected) in enumerate(zip(table.column("epoch"), epochs, strict=True)):
        if found != expected:
            table.refuse(index, f"epoch is {found!r}; expected {expected}")
    table.only("best", ("0", "1"))
    kept = table.column("best").count("1")
    if table.rows and kept != 1:
        raise RunError(f"{table.path}: {kept} epochs are marked best; expected one: {AGAIN}")
