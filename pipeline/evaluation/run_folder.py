"""Reads and checks a run folder, `runs/<regime>/<corpus>/<fusion>/`.

Besides predictions.csv and history.csv the folder of a (seed, fold) may hold probes.csv (columns
`PROBES` and `p_<class>`), the test predictions of a linear probe on each slot alone, and
conditions.csv (columns `CONDITIONS`), the trained model's test predictions with one slot dropped
(`without_<slot>`), with its texts exchanged among the utterances (`shuffled_text`) or with
recognised words (`asr_text`). layers.csv (columns `LAYERS` and `<slot>_<number>`) holds the classes
that a linear probe on each hidden state of a stack predicts, for all rows. That of an ensemble may
hold members.csv (columns `MEMBERS`), the test predictions of each member. Layout: docs/files.md.

A run that learns more than classes has columns of truth and of predictions for each of its targets
(`pipeline.runs.layout.Columns`). What is unknown, an empty cell, is NaN here, or class -1. So are
the probabilities of a model that gives none, and a prediction that names no class.

Shapes: N rows of predictions, T of them of the test split, E epochs, K classes, A attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import RunError
from pipeline.evaluation.layer_results import Mix, read_layers, read_mixes
from pipeline.evaluation.targets import RunTargets, named_of, shares_of, values_of
from pipeline.metrics.classes import Floats
from pipeline.runs.head import read_head
from pipeline.runs.layout import MEMBERS, SCORED, digests, layer_column
from pipeline.runs.tables import AGAIN, Table, read_csv


@dataclass(frozen=True)
class Guess:
    """What a probe, or the model under a condition, predicts for the test rows of a job.

    Attributes:
        predictions: `[T]` predicted classes; -1 without classes.
        probabilities: `[T, K]`; None where the file has none.
        values: `[T, A]` predicted attributes.
    """

    predictions: NDArray[np.int64]
    probabilities: Floats | None
    values: Floats


Guesses = Mapping[str, Guess]
"""Predictions by slot, or by condition."""


class _Probes(NamedTuple):
    """Content of a probes.csv, and the test rows, id and label, that it was read for."""

    tested: tuple[tuple[str, str], ...]
    guesses: Guesses


@dataclass(frozen=True)
class JobResult:
    """Predictions and history of one (seed, fold).

    Attributes:
        seed: Random seed of the training.
        fold: Fold, from 0.
        labels: `[N]` true classes as indices; -1 where a row has none.
        predictions: `[N]` predicted classes as indices; -1 without classes, and where a model
            without probabilities named none.
        probabilities: `[N, K]` as written; by rounding a row may not sum to exactly 1. NaN
            throughout if the model gives none.
        named: `[N, K]`, the classes that are predicted of several at once.
        shares: `[N, K]` shares of the votes, NaN where a row has none, and without that task.
        truth: `[N, A]` true attributes on the corpus's scale, NaN where unknown.
        values: `[N, A]` predicted ones.
        test: `[N]` bool, True for the rows of the test split (the others are of the valid split).
        table: predictions.csv, N rows.
        history: history.csv, E rows; none for a model that is not trained in epochs.
        probes: Predictions of the linear probe on each slot, for the test rows.
        conditions: Predictions of the model under each condition, for the test rows.
        members: Predictions of each member of an ensemble, for the test rows.
        layers: `[N]` classes that a linear probe predicts, by slot and number of a hidden state; of
            the first seed alone, since a probe has none.
        mixes: Learned weights of layers by slot.
    """

    seed: int
    fold: int
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: Floats
    named: NDArray[np.bool_]
    shares: Floats
    truth: Floats
    values: Floats
    test: NDArray[np.bool_]
    table: Table
    history: Table
    probes: Guesses
    conditions: Guesses
    members: Guesses
    layers: Mapping[str, Mapping[int, NDArray[np.int64]]]
    mixes: Mapping[str, Mix]


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
    targets: RunTargets
    jobs: tuple[JobResult, ...]
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def with_probabilities(self) -> bool:
        """Whether the model gives probabilities of its classes."""
        return not any(np.isnan(job.probabilities).any() for job in self.jobs)

    @property
    def abstains(self) -> bool:
        """Whether the model named no class of some row, which counts as wrong."""
        return bool(self.classes) and any((job.predictions < 0).any() for job in self.jobs)

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
        targets = RunTargets.of(head, path / "run.json")
        probes: dict[Path, _Probes] = {}
        mixed = bool(head.get("inputs", {}).get("mix_layers"))
        jobs = [
            _job(path, (seed, fold), seeds, classes, targets, probes, mixed=mixed)
            for seed in seeds
            for fold in range(head["folds"])
        ]
        _check_alike(path, "probes", (list(job.probes) for job in jobs))
        _check_alike(path, "conditions", (list(job.conditions) for job in jobs))
        _check_alike(path, "layers", (_states(job) for job in jobs[: head["folds"]]))
        _check_alike(path, "mixed slots", (list(job.mixes) for job in jobs))
        _check_alike(
            path, "columns", (["p"] * (not np.isnan(job.probabilities).any()) for job in jobs)
        )
        _check_alike(path, "members", (list(job.members) for job in jobs))
        _check_files(path, head.get("files", {}))
        given = {each.name: head[each.name] for each in fields(cls) if each.name in head}
        given |= {"path": path, "classes": classes, "seeds": seeds, "jobs": tuple(jobs)}
        given |= {"targets": targets}
        return cls(**given)


def _check_folders(run: Path, seeds: Sequence[int], folds: int) -> None:
    """Refuse a run folder with other seeds and folds than run.json names."""
    found = {path.relative_to(run).as_posix() for path in run.glob("seed_*/fold_*")}
    # run.json may name any number of folds: generate no more names than there are folders
    named = (f"seed_{seed}/fold_{fold}" for seed in seeds for fold in range(folds))
    first = set(islice(named, len(found) + 1))
    if first != found:
        lacking, more = sorted(first - found), sorted(found - first)
        problem = f"{lacking[0]} is not there" if lacking else f"{more[0]} is there too"
        raise RunError(
            f"{run / 'run.json'} names the seeds {list(seeds)} and {folds} folds, and {problem}; "
            f"expected a folder for each of them and no others: {AGAIN}"
        )


def _check_alike(run: Path, what: str, names: Iterable[Sequence[str]]) -> None:
    """Refuse a run whose jobs hold different probes, or different conditions."""
    found = {tuple(sorted(each)) for each in names}
    if len(found) > 1:
        raise RunError(
            f"{run}: jobs hold different {what}, {sorted(found)}; expected the same of all "
            f"seeds and folds: {AGAIN}"
        )


def _check_files(run: Path, files: Mapping[str, str]) -> None:
    """Refuse files that differ from those that training wrote, by their hashes in run.json."""
    if not files:  # a run of an older release
        return
    found = digests(run)
    for name in sorted(files.keys() | found.keys()):
        if files.get(name) != found.get(name):
            fault = "is not there" if name not in found else "is not as training wrote it"
            raise RunError(f"{run / name} {fault}; expected the file that run.json names: {AGAIN}")


def _job(
    run: Path,
    key: tuple[int, int],
    seeds: Sequence[int],
    classes: Sequence[str],
    targets: RunTargets,
    probes: dict[Path, _Probes],
    *,
    mixed: bool,
) -> JobResult:
    # `seeds` holds the job's own seed too: reading its folder twice finds the same file
    folder, *others = (run / f"seed_{seed}" / f"fold_{key[1]}" for seed in (key[0], *seeds))
    alone = targets.classes_alone
    table = read_csv(folder / "predictions.csv", targets.columns.predictions)
    history = read_csv(folder / "history.csv", targets.columns.history)
    for each in (table, history):
        for name, number in zip(("seed", "fold"), key, strict=True):
            each.only(name, (str(number),))
    table.only("split", SCORED)
    _check_ids(table)
    probabilities, predictions = _classes_of(table, classes)
    _check_history(history)
    test = np.array([split == "test" for split in table.column("split")], bool)
    if not test.any():
        raise RunError(f"{table.path}: no rows of the test split; expected some: {AGAIN}")
    pairs = zip(table.column("id"), table.column("label"), test, strict=True)
    tested = {id: label for id, label, is_test in pairs if is_test}
    return JobResult(
        *key,
        labels=table.indices("label", classes, unknown=not alone),
        predictions=predictions,
        probabilities=probabilities,
        named=named_of(table, classes, probabilities),
        shares=shares_of(table, classes, targets),
        truth=values_of(table, "y", targets, unknown=True),
        values=values_of(table, "v", targets),
        test=test,
        table=table,
        history=history,
        probes=_read_probes((folder, *others), tested, classes, targets, probes),
        conditions=_read_conditions(folder, tested, classes, targets),
        members=_read_members(folder, tested, classes, targets),
        layers=read_layers(folder / "layers.csv", table, classes),
        mixes=read_mixes(folder) if mixed else {},
    )


def _classes_of(table: Table, classes: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities `[N, K]` and predicted classes `[N]`; -1 for a run without classes."""
    if not classes:
        table.only("prediction", ("",))
        return np.zeros((len(table), 0)), np.full(len(table), -1)
    probabilities = table.probabilities(classes, unknown=True)
    without = bool(np.isnan(probabilities).any())
    predictions = table.indices("prediction", classes, unknown=without)
    if not without:
        table.likeliest(probabilities, predictions)
    return probabilities, predictions


def _read_probes(
    folders: Iterable[Path],
    test: Mapping[str, str],
    classes: Sequence[str],
    targets: RunTargets,
    known: dict[Path, _Probes],
) -> Guesses:
    """probes.csv of the first folder that has one; {} if none has.

    Args:
        folders: Folder of the job, then those of other seeds on the same fold: a probe has no seed,
            so that one file serves all seeds.
        test: Label by id of the job's test rows, in their order.
        classes: K class names.
        targets: What the run learns.
        known: Files that were read for other seeds, which share the arrays; added to.
    """
    for folder in folders:
        path = folder / "probes.csv"
        if path.exists():
            if path not in known or known[path].tested != tuple(test.items()):
                table = read_csv(path, targets.columns.probes)
                guesses = _guesses(table, "slot", test, classes, targets)
                known[path] = _Probes(tuple(test.items()), guesses)
            return known[path].guesses
    return {}


def _states(job: JobResult) -> list[str]:
    """Hidden states that a job has probes of."""
    return [layer_column(slot, number) for slot, of in job.layers.items() for number in of]


def _read_conditions(
    folder: Path, test: Mapping[str, str], classes: Sequence[str], targets: RunTargets
) -> Guesses:
    """conditions.csv of a job; {} if it has none."""
    path = folder / "conditions.csv"
    if not path.exists():
        return {}
    table = read_csv(path, targets.columns.conditions)
    return _guesses(table, "condition", test, classes, targets)


def _read_members(
    folder: Path, test: Mapping[str, str], classes: Sequence[str], targets: RunTargets
) -> Guesses:
    """members.csv of a job; {} if it has none."""
    path = folder / "members.csv"
    return (
        _guesses(read_csv(path, MEMBERS), "member", test, classes, targets) if path.exists() else {}
    )


def _guesses(
    table: Table,
    key: str,
    test: Mapping[str, str],
    classes: Sequence[str],
    targets: RunTargets,
) -> Guesses:
    """Predictions by the column `key`, each for all test rows in their order."""
    probabilities = None
    if all(f"p_{name}" in table.header for name in classes):
        probabilities, predictions = _classes_of(table, classes)
    else:
        predictions = table.indices("prediction", classes, unknown=key == "member")
    values = values_of(table, "v", targets)
    found: dict[str, dict[str, int]] = {}
    cells = zip(*(table.column(column) for column in ("id", key, "label")), strict=True)
    for index, (id, name, label) in enumerate(cells):
        if id not in test:
            table.refuse(index, f"id {id!r} is not in the test split; expected only such")
        if label != test[id]:
            table.refuse(index, f"label of {id!r} is {label!r}; expected {test[id]!r}")
        of = found.setdefault(name, {})
        if id in of:
            table.refuse(index, f"id {id!r} a second time for {key} {name!r}; expected each once")
        of[id] = index
    for name, of in found.items():
        missing = [id for id in test if id not in of]
        if missing:
            raise RunError(
                f"{table.path}: {key} {name!r} lacks {len(missing)} test utterances, such as "
                f"{missing[:5]}; expected all {len(test)}: {AGAIN}"
            )
    guesses = {}
    for name, of in found.items():
        rows = [of[id] for id in test]
        shares = None if probabilities is None else probabilities[rows]
        guesses[name] = Guess(predictions[rows], shares, values[rows])
    return guesses


def _check_ids(table: Table) -> None:
    seen: set[str] = set()
    for index, id in enumerate(table.column("id")):
        if id in seen:
            table.refuse(index, f"id {id!r} a second time; expected each once")
        seen.add(id)


def _check_history(table: Table) -> None:
    for name in table.header:
        table.numbers(name)
    epochs = [str(number) for number in range(1, len(table) + 1)]
    for index, (found, expected) in enumerate(zip(table.column("epoch"), epochs, strict=True)):
        if found != expected:
            table.refuse(index, f"epoch is {found!r}; expected {expected}")
    table.only("best", ("0", "1"))
    kept = table.column("best").count("1")
    if len(table) and kept != 1:
        raise RunError(f"{table.path}: {kept} epochs are marked best; expected one: {AGAIN}")
