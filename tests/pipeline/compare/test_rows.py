"""Common rows of runs, rows left out with reasons, and the vote of a run's seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.errors import ParamsError, RunError
from pipeline.compare.rows import CommonRows, common_rows
from pipeline.compare.sources import read_run
from tests.support.runs.predicted_runs import CLASSES, FakePredictions

WEAK = FakePredictions(skill=0.4, draw=1)
GOOD = FakePredictions(skill=0.7, draw=2)


def common(*names: str) -> CommonRows:
    return common_rows([read_run(name) for name in names])


def test_most_seeds_win_a_vote_and_probability_breaks_ties(tmp_path: Path) -> None:
    run = FakePredictions(seeds=(0, 1, 2, 3), each=1)
    rows = [row for row in run.rows() if row[3] == "test"]
    of_first = [row for row in rows if row[0] == "u000"]
    of_second = [row for row in rows if row[0] == "u001"]
    for row, name in zip(of_first, ("sad", "sad", "sad", "angry"), strict=True):
        # the one that disagrees is sure
        row[7:] = [name, *((1, 0, 0) if name == "angry" else (0.3, 0.3, 0.4))]
    for row, name in zip(of_second, ("sad", "sad", "angry", "angry"), strict=True):
        row[7:] = [name, *((0.6, 0.2, 0.2) if name == "angry" else (0.05, 0.05, 0.9))]
    name = run.write(tmp_path / "a.csv", rows)
    votes = common_rows([read_run(name)] * 2).runs[0].votes
    assert [CLASSES[k] for k in votes[:2]] == ["sad", "sad"]


def test_one_seed_votes_for_its_prediction(tmp_path: Path) -> None:
    run = FakePredictions(seeds=(0,))
    rows = run.rows()
    for row in rows:  # as sure of each class but for rounding, which may name any of them
        row[8:] = [1 / 3 + 1e-9, 1 / 3, 1 / 3 - 1e-9]
    found = common_rows([read_run(run.write(tmp_path / "a.csv", rows))] * 2).runs[0]
    np.testing.assert_array_equal(found.votes, found.predictions[0])


def test_rows_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    rows = GOOD.rows()
    rows = [row for row in rows if row[0] not in ("u000", "u001")]
    rows = [row for row in rows if (row[0], row[5]) != ("u002", 1)]
    for row in rows:
        if row[0] == "u003":
            row[6] = next(name for name in CLASSES if name != row[6])
        if row[0] == "u004":
            row[4] = 7
        if row[0] == "u005":
            row[3] = "valid"
    names = [WEAK.write(tmp_path / "a.csv"), GOOD.write(tmp_path / "b.csv", rows)]
    found = common(*names)
    assert len(found.items) == 54
    assert {(each.tag, each.reason): each.examples for each in found.left_out} == {
        ("A", "not tested in B"): ("u000", "u001"),
        ("A", "not predicted by each seed of B"): ("u002",),
        ("A", "with another label in B"): ("u003",),
        ("A", "tested in another fold in B"): ("u004",),
        ("A", "of the valid split in B"): ("u005",),
        ("B", "not predicted by each of its own seeds"): ("u002",),
        ("B", "with another label in A"): ("u003",),
        ("B", "tested in another fold in A"): ("u004",),
    }


def test_other_ids_are_refused(tmp_path: Path) -> None:
    rows = [[f"x{row[0]}", *row[1:]] for row in GOOD.rows()]
    names = [WEAK.write(tmp_path / "a.csv"), GOOD.write(tmp_path / "b.csv", rows)]
    with pytest.raises(RunError) as caught:
        common(*names)
    assert "0 test rows are common to all 2 runs; expected 10 or more" in str(caught.value)
    assert "left out of A: 60 not tested in B: u000, u001, u002" in str(caught.value)
    assert "left out of B: 60 not tested in A: xu000" in str(caught.value)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    other = GOOD.with_(classes=("angry", "happy", "sad"))
    rows = [[*row[:6], *(f"{name}!" for name in row[6:8]), *row[8:]] for row in other.rows()]
    path = tmp_path / "b.csv"
    other.write(path, rows)
    text = path.read_text()
    for name in CLASSES:
        text = text.replace(f"p_{name}", f"p_{name}!")
    path.write_text(text)
    with pytest.raises(RunError, match=r"B .* has the classes \['angry!', 'happy!', 'sad!'\]"):
        common(WEAK.write(tmp_path / "a.csv"), str(path))


def test_one_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="1 runs to compare; expected 2 to 26"):
        common(WEAK.write(tmp_path / "a.csv"))
