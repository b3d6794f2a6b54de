"""Reads what a run folder may hold besides its predictions: unimodal probes and worse conditions.

`probes.csv` (columns `PROBES` and `p_<class>`) holds, for every slot, the test predictions of a
linear probe on that slot alone. `conditions.csv` (columns `CONDITIONS`) holds the trained model's
test predictions with one slot dropped (`without_<slot>`), with its texts exchanged among the
utterances (`shuffled_text`) or with recognised words (`asr_text`). Both lie in the folder of a
(seed, fold). A probe has no seed, so one that lies with one seed only counts for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.tables import AGAIN, RunError, Table, read_csv

PROBES = ("id", "slot", "label", "prediction")
CONDITIONS = ("id", "condition", "label", "prediction")

Guesses = Mapping[str, NDArray[np.int64]]
"""By name of a slot or a condition: predicted class of each test row of a job, in its order."""


def read_probes(
    folders: Iterable[Path], test: Mapping[str, str], classes: Sequence[str]
) -> Guesses:
    """Read probes.csv from the first of `folders` that has one; {} if none has.

    Args:
        folders: The job's own, then those of other seeds on the same fold.
        test: Label by id of the job's test rows, in their order.
        classes: K class names.

    Raises:
        RunError: If the file is malformed, or is about other utterances or labels.
    """
    for folder in folders:
        path = folder / "probes.csv"
        if path.exists():
            table = read_csv(path, (*PROBES, *(f"p_{name}" for name in classes)))
            table.likeliest(table.probabilities(classes), table.indices("prediction", classes))
            return _guesses(table, "slot", test, classes)
    return {}


def read_conditions(folder: Path, test: Mapping[str, str], classes: Sequence[str]) -> Guesses:
    """Read conditions.csv of a job; {} if it has none.

    Args:
        folder: The job's.
        test: Label by id of the job's test rows, in their order.
        classes: K class names.

    Raises:
        RunError: If the file is malformed, or is about other utterances or labels.
    """
    path = folder / "conditions.csv"
    if not path.exists():
        return {}
    return _guesses(read_csv(path, CONDITIONS), "condition", test, classes)


def check_alike(run: Path, what: str, names: Iterable[Sequence[str]]) -> None:
    """Refuse a run whose jobs differ in the probes, or the conditions, that they hold."""
    found = {tuple(sorted(each)) for each in names}
    if len(found) > 1:
        raise RunError(
            f"{run}: jobs hold different {what}, {sorted(found)}; expected the same of all "
            f"seeds and folds: {AGAIN}"
        )


def _guesses(table: Table, key: str, test: Mapping[str, str], classes: Sequence[str]) -> Guesses:
    guesses = table.indices("prediction", classes)
    found: dict[str, dict[str, int]] = {}
    for index, (id, name, label, _) in enumerate(row[:4] for row in table.rows):
        if id not in test:
            table.refuse(index, f"id {id!r} is not in the test split; expected only such")
        if label != test[id]:
            table.refuse(index, f"label of {id!r} is {label!r}; expected {test[id]!r}")
        of = found.setdefault(name, {})
        if id in of:
            table.refuse(index, f"id {id!r} a second time for {key} {name!r}; expected each once")
        of[id] = int(guesses[index])
    for name, of in found.items():
        missing = [id for id in test if id not in of]
        if missing:
            raise RunError(
                f"{table.path}: {key} {name!r} lacks {len(missing)} test utterances, such as "
                f"{missing[:5]}; expected all {len(test)}: {AGAIN}"
            )
    return {name: np.array([of[id] for id in test], np.int64) for name, of in found.items()}
