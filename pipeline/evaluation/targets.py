"""What a run learns, and the columns of it in predictions.csv.

Shapes: N rows, K classes, A attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from features.errors import RunError
from pipeline.metrics.classes import Floats
from pipeline.metrics.votes import Named, named
from pipeline.runs.layout import Columns
from pipeline.runs.tables import AGAIN, Table, no_distribution

TASKS = ("classes", "votes", "attributes", "gender")
_MARGIN = 1e-6  # of values written with nine significant digits


@dataclass(frozen=True)
class RunTargets:
    """What a run learns, by run.json.

    Attributes:
        columns: Columns of its files, which name the tasks.
        scales: Lowest and highest value by attribute.
        clipped: Predictions by attribute, of all jobs, that were clipped to the scale.
        lacking: Utterances of the corpus that have none of the targets, and were left out.
    """

    columns: Columns
    scales: Mapping[str, tuple[float, float]]
    clipped: Mapping[str, int]
    lacking: int

    @classmethod
    def of(cls, head: Mapping[str, Any], path: Path) -> Self:
        """By the content of run.json, and its path for messages.

        Raises:
            RunError: If tasks and attributes contradict each other, or a scale is none.
        """
        given = head.get("targets") or {"attributes": {}}
        for name, (low, high) in given["attributes"].items():
            if not low < high:
                raise RunError(
                    f"{path}: targets.attributes.{name}: given {low} to {high}; expected the "
                    f"lowest and the highest value of its scale: {AGAIN}"
                )
        columns = Columns.of(head)
        if set(columns.tasks) - set(TASKS) or ("attributes" in columns.tasks) != bool(
            columns.attributes
        ):
            raise RunError(
                f"{path}: targets: given the tasks {list(columns.tasks)} and the attributes "
                f"{list(columns.attributes)}; expected some of {list(TASKS)}, with attributes if "
                f"and only if they are a task: {AGAIN}"
            )
        scales = {name: (float(of[0]), float(of[1])) for name, of in given["attributes"].items()}
        return cls(columns, scales, given.get("clipped", {}), given.get("lacking", 0))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Targets that were trained: "classes", "votes", "attributes", "gender"."""
        return self.columns.tasks

    @property
    def classes_alone(self) -> bool:
        """Whether that is one class an utterance and nothing else."""
        return self.columns.classes_alone


def named_of(table: Table, classes: Sequence[str], probabilities: Floats) -> Named:
    """Classes that are predicted, `[N, K]`: by a model that decides class by class, above 0.5."""
    if f"m_{classes[0] if classes else ''}" not in table.header:
        return named(probabilities) if classes else np.zeros(probabilities.shape, bool)
    return np.stack([table.numbers(f"m_{name}") > 0.5 for name in classes], axis=1)


def shares_of(table: Table, classes: Sequence[str], targets: RunTargets) -> Floats:
    """Shares of the votes `[N, K]`, NaN where a row has none."""
    if "votes" not in targets.tasks:
        return np.broadcast_to(np.nan, (len(table), len(classes)))  # takes no memory
    shares = np.stack([table.numbers(f"t_{name}") for name in classes], axis=1)
    without = np.isnan(shares).all(1, keepdims=True)
    index = no_distribution(np.where(without, 1 / len(classes), shares))
    if index is not None:
        found = shares[index].tolist()
        table.refuse(index, f"shares of votes {found}; expected a sum of 1, or empty cells")
    return shares


def values_of(table: Table, prefix: str, targets: RunTargets, *, unknown: bool = False) -> Floats:
    """Columns `<prefix>_<attribute>`, `[N, A]`, within their scales."""
    columns: list[Floats] = []
    for name, (low, high) in targets.scales.items():
        values = table.numbers(f"{prefix}_{name}")
        wrong = ~((values >= low - _MARGIN) & (values <= high + _MARGIN))
        wrong &= ~(np.isnan(values) & unknown)
        if wrong.any():
            index = int(np.argmax(wrong))
            cell = table.column(f"{prefix}_{name}")[index]
            expected = f"a number from {low:g} to {high:g}{', or none' if unknown else ''}"
            table.refuse(index, f"{prefix}_{name} is {cell!r}; expected {expected}")
        columns.append(values)
    return np.stack(columns, axis=1) if columns else np.zeros((len(table), 0))
