"""Worst errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.errors import worst_errors
from pipeline.evaluation.rows import RunRows
from tests.support.runs.fake_run import FakeRun, rows_of


@pytest.fixture
def rows(tmp_path: Path) -> RunRows:
    """Three seeds that are right about everything, and quite sure."""
    found = rows_of(FakeRun(tmp_path, seeds=(0, 1, 2), facts=True).write())
    shares = 0.1 + 0.6 * np.eye(4)[found.labels]
    return replace(found, predictions=found.labels.copy(), probabilities=shares)


def mistake(rows: RunRows, utterance: int, guesses: list[int], share: float) -> None:
    """Seed s says `guesses[s]` classes after the true one, with probability `share`.

    Seeds without a guess stay right and sure.
    """
    for seed, step in enumerate(guesses):
        (row,) = np.flatnonzero((rows.utterance == utterance) & (rows.seed == seed))
        guess = (rows.labels[row] + step) % 4
        rows.predictions[row] = guess
        rows.probabilities[row] = (1 - share) / 3
        rows.probabilities[row, guess] = share


def test_no_errors_are_no_errors(rows: RunRows) -> None:
    found = worst_errors(rows)
    assert (found.shown, found.total) == ((), 0)


def test_what_most_seeds_got_wrong_comes_surest_first(rows: RunRows) -> None:
    mistake(rows, 3, [1, 1, 1], 0.7)
    mistake(rows, 5, [2, 2, 0], 0.94)  # two of three seeds
    mistake(rows, 7, [1, 0, 0], 0.97)  # one of three: luck
    mistake(rows, 9, [1, 2, 3], 0.97)  # all wrong, of no one mind
    found = worst_errors(rows)
    assert found.total == 3
    indices = [3, 5, 9]
    assert [error.utterance.id for error in found.shown] == [rows.utterances[u].id for u in indices]
    assert [error.seeds_wrong for error in found.shown] == [3, 2, 3]
    assert {error.seeds for error in found.shown} == {3}
    first, second, third = found.shown
    assert first.probability == pytest.approx(0.7)
    assert second.probability == pytest.approx((0.94 * 2 + 0.02) / 3)
    assert third.probability == pytest.approx((0.97 + 0.01 * 2) / 3)
    label = rows.utterances[3]
    assert first.predicted == rows.classes[(rows.classes.index(label.label) + 1) % 4]
    assert first.utterance == label


def test_the_predicted_class_is_never_the_true_one(rows: RunRows) -> None:
    """Though its mean probability may be the highest of all."""
    mistake(rows, 4, [1, 1], 0.26)
    mine = rows.utterance == 4
    assert rows.probabilities[mine].mean(0).argmax() == rows.labels[mine][0]
    (error,) = worst_errors(rows).shown
    assert error.predicted != error.utterance.label
    assert error.probability is not None
    assert error.probability < 0.3


def test_half_of_the_seeds_are_not_most(tmp_path: Path) -> None:
    rows = rows_of(FakeRun(tmp_path, seeds=(0, 1)).write())
    rows = replace(rows, predictions=rows.labels.copy())
    mistake(rows, 6, [1, 0], 0.9)
    assert worst_errors(rows).total == 0
    mistake(rows, 6, [1, 1], 0.9)
    assert worst_errors(rows).total == 1


def test_equal_errors_come_in_order_of_id_and_only_some_are_shown(rows: RunRows) -> None:
    for utterance in range(30):
        mistake(rows, utterance, [1, 1, 1], 0.8)
    found = worst_errors(rows)
    assert (len(found.shown), found.total) == (20, 30)
    ids = [error.utterance.id for error in found.shown]
    assert ids == sorted(ids)
    assert len(worst_errors(rows, shown=3).shown) == 3
