"""Writes small reports/predictions.csv files, for tests of what compares runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.files.csv_text import write_csv
from pipeline.compare.comparison import Comparison, Settings
from pipeline.compare.kinds import compare_any
from pipeline.runs.layout import PREDICTIONS

CLASSES = ("angry", "happy", "sad")


@dataclass(frozen=True)
class FakePredictions:
    """Predictions on `speakers` who say `each` things; equal values of both mean equal labels.

    `skill` is the share of labels that the model sees; the rest is guessed. `draw` seeds the
    guessing, so that runs that differ in it are wrong about different utterances.
    """

    seeds: tuple[int, ...] = (0, 1)
    folds: int = 1
    speakers: int = 12
    each: int = 5
    skill: float = 0.5
    draw: int = 0
    classes: tuple[str, ...] = CLASSES

    def rows(self) -> list[list[Any]]:
        """One valid row for each fold and seed, and the test rows."""
        labels = np.random.default_rng(9).integers(0, 3, self.speakers * self.each)
        rows: list[list[Any]] = []
        for seed in self.seeds:
            rng = np.random.default_rng([self.draw, seed])
            for index, truth in enumerate(labels):
                speaker, fold = index // self.each, index // self.each % self.folds
                guess = truth if rng.random() < self.skill else rng.integers(3)
                shares = 0.5 * rng.dirichlet(np.ones(3)) + 0.5 * np.eye(3)[guess]
                order = [CLASSES.index(name) for name in self.classes]
                row = [f"u{index:03d}", f"s{speaker:02d}", "", "test", fold, seed]
                rows.append([*row, CLASSES[truth], CLASSES[guess], *shares[order].tolist()])
            for fold in range(self.folds):
                row = [f"v{fold}", "s99", "", "valid", fold, seed, "sad", "sad"]
                rows.append([*row, *(float(name == "sad") for name in self.classes)])
        return rows

    def write(self, path: Path, rows: list[list[Any]] | None = None) -> str:
        """Write `rows` (None: its own) as predictions.csv; returns the path as a user gives it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        header = [*PREDICTIONS, *(f"p_{name}" for name in self.classes)]
        write_csv(path, header, self.rows() if rows is None else rows)
        return str(path)

    def with_(self, **changes: Any) -> FakePredictions:
        return replace(self, **changes)


def compare_runs(names: Sequence[str], settings: Settings | None = None) -> Comparison:
    """Compare runs that learn classes."""
    found = compare_any(names, settings).classes
    assert found is not None
    return found
