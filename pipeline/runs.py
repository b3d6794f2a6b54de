"""Reads a run folder, `runs/<regime>/<corpus>/<fusion>/`, and believes nothing in it unchecked.

Layout and columns: docs/design.md. Legend: N rows of predictions, E epochs, K classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import HeronryError
from features.records import read_json

FORMAT, VERSION = "heronry-run", 1
HISTORY = (
    *("seed", "fold", "epoch", "lr", "train_loss", "valid_loss", "valid_accuracy", "valid_uar"),
    *("valid_macro_f1", "valid_weighted_f1", "best"),
)
PREDICTIONS = ("id", "speaker", "dialogue", "split", "fold", "seed", "label", "prediction")
SCORED = ("valid", "test")
TOLERANCE = 1e-3
"""By how much K rounded probabilities may miss a sum of 1."""

_AGAIN = "run `dvc repro` to train it again"
_NUMBER = (int, float)
_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("regime", "corpus", "fusion", "kind"), str),
    **dict.fromkeys(("slots", "args", "train", "dropped"), dict),
    **dict.fromkeys(("classes", "seeds"), list),
    **dict.fromkeys(("folds", "parameters", "utterances"), int),
    "train_seconds": _NUMBER,
}


class RunError(HeronryError):
    """A run folder is incomplete, malformed, or belongs to other labels."""


@dataclass(frozen=True)
class Table:
    """A CSV file as text: `rows` of as many cells as `header`, and the line each ends on."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> tuple[str, ...]:
        """All cells of one column."""
        index = self.header.index(name)
        return tuple(row[index] for row in self.rows)

    def refuse(self, index: int, complaint: str) -> NoReturn:
        """Raise `RunError` about row `index`, naming file and line."""
        raise RunError(f"{self.path}, line {self.lines[index]}: {complaint}: {_AGAIN}")

    def numbers(self, name: str) -> NDArray[np.float64]:
        """One column as floats; NaN where a cell is empty."""
        cells = self.column(name)
        for index, cell in enumerate(cells):
            if not _is_number(cell):
                self.refuse(index, f"{name} is {cell!r}; expected a number")
        return np.array([float(cell or "nan") for cell in cells], np.float64)


@dataclass(frozen=True)
class Job:
    """What one (seed, fold) left behind.

    Attributes:
        seed: Of the random generators.
        fold: From 0.
        labels: `[N]` true classes as indices.
        predictions: `[N]` predicted classes as indices.
        test: `[N]` bool, True for the rows of the test split (the others are of the valid split).
        table: predictions.csv; a row for each of N.
        history: history.csv; a row for each of E epochs, none for what is not trained in epochs.
    """

    seed: int
    fold: int
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    test: NDArray[np.bool_]
    table: Table
    history: Table


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
        jobs = [_job(path, s, f, classes) for s in seeds for f in range(head["folds"])]
        fields = {name: head[name] for name in _FIELDS}
        fields |= {"path": path, "classes": classes, "seeds": seeds, "jobs": tuple(jobs)}
        return cls(**fields)


def _check_head(head: Mapping[str, Any], path: Path) -> None:
    def expect(holds: object, found: object, expected: str) -> None:
        if not holds:
            raise RunError(f"{path}: found {found}; expected {expected}: {_AGAIN}")

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


def _job(run: Path, seed: int, fold: int, classes: Sequence[str]) -> Job:
    folder = run / f"seed_{seed}" / f"fold_{fold}"
    table = _read_csv(folder / "predictions.csv", (*PREDICTIONS, *(f"p_{k}" for k in classes)))
    history = _read_csv(folder / "history.csv", HISTORY)
    for each in (table, history):
        _all(each, "seed", (str(seed),))
        _all(each, "fold", (str(fold),))
    _all(table, "split", SCORED)
    _check_ids(table)
    _check_probabilities(table, classes)
    _check_history(history)
    test = np.array([split == "test" for split in table.column("split")], bool)
    if not test.any():
        raise RunError(f"{table.path}: no rows of the test split; expected some: {_AGAIN}")
    index = {name: k for k, name in enumerate(classes)}
    sides = []
    for name in ("label", "prediction"):
        _all(table, name, classes)
        sides.append(np.array([index[cell] for cell in table.column(name)], np.int64))
    return Job(seed, fold, sides[0], sides[1], test, table, history)


def _read_csv(path: Path, header: Sequence[str]) -> Table:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            numbered = [(tuple(row), reader.line_num) for row in _rows(reader)]
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror}); {_AGAIN}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no CSV file in UTF-8 ({error}); {_AGAIN}") from error
    found = numbered[0][0] if numbered else ()
    if found != tuple(header):
        missing = [name for name in header if name not in found]
        extra = [name for name in found if name not in header]
        raise RunError(
            f"{path}: columns {list(found)}; expected {list(header)} in this order "
            f"(missing {missing}, unexpected {extra}): {_AGAIN}"
        )
    rows, lines = zip(*numbered, strict=True)
    table = Table(path, tuple(header), rows[1:], lines[1:])
    for index, row in enumerate(table.rows):
        if len(row) != len(header):
            table.refuse(index, f"{len(row)} cells; expected {len(header)}")
    return table


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (row for row in reader if row)


def _all(table: Table, name: str, allowed: Sequence[str]) -> None:
    for index, cell in enumerate(table.column(name)):
        if cell not in allowed:
            table.refuse(index, f"{name} is {cell!r}; expected one of {list(allowed)}")


def _check_ids(table: Table) -> None:
    seen: set[str] = set()
    for index, id in enumerate(table.column("id")):
        if id in seen:
            table.refuse(index, f"id {id!r} a second time; expected each once")
        seen.add(id)


def _check_probabilities(table: Table, classes: Sequence[str]) -> None:
    if not table.rows:
        return
    values = np.stack([table.numbers(f"p_{name}") for name in classes], axis=1)
    # written so that NaN fails too
    right = ((values >= 0) & (values <= 1 + TOLERANCE)).all(1)
    right &= np.abs(values.sum(1) - 1) <= TOLERANCE
    if not right.all():
        index = int(np.argmin(right))
        table.refuse(index, f"probabilities {values[index].tolist()}; expected a sum of 1")


def _check_history(table: Table) -> None:
    for name in table.header:
        table.numbers(name)
    _all(table, "best", ("0", "1"))
    kept = table.column("best").count("1")
    if table.rows and kept != 1:
        raise RunError(f"{table.path}: {kept} epochs are marked best; expected one: {_AGAIN}")


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
