"""Ties with the best experiment: by the paired test or by intervals, with the basis stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.errors import RunError
from pipeline.board.output import as_text, mark
from pipeline.board.rows import Row, Shown
from pipeline.board.ties import Group, judge
from pipeline.compare.significance import holm
from pipeline.compare.sources import PredictedRun, read_run
from tests.pipeline.commands.test_board import numbers
from tests.support.runs.predicted_runs import FakePredictions, compare_runs


def unreadable(_: str) -> PredictedRun:
    raise RunError("no predictions here")


def row(name: str, value: float, width: float | None = 0.05) -> Row:
    metrics = numbers(value, width) if width else {"uar": value, "nll": value}
    return Row(name, name, "speech", "cached", "tones", metrics, {}, ())


def test_without_predictions_intervals_decide() -> None:
    rows = [row("a", 0.8), row("b", 0.71), row("c", 0.5), row("d", 0.4, width=None)]
    found = judge(rows, "uar", read=unreadable)
    assert [verdict.tie for verdict in found] == [None, True, False, None]
    assert [mark(verdict) for verdict in found] == ["*", "~", "", "?"]
    assert found[1].why == "of the best: no predictions here"
    nowhere = judge(rows, "nll", read=unreadable)
    assert {verdict.basis for verdict in nowhere} == {"none"}
    assert nowhere[1].why == "there is no paired test of nll, and no interval"


def test_the_paired_test_decides_where_predictions_are_available(tmp_path: Path) -> None:
    """P are those of `compare`, corrected over all rows, and overrule the intervals."""
    runs = {
        "good": FakePredictions(skill=0.9, draw=1, speakers=20),
        "like": FakePredictions(skill=0.88, draw=2, speakers=20),
        "weak": FakePredictions(skill=0.2, draw=3, speakers=20),
    }
    paths = {name: run.write(tmp_path / f"{name}.csv") for name, run in runs.items()}
    rows = [row(name, 0.9 - 0.1 * k, width=0.5) for k, name in enumerate(runs)]
    rows.append(row("gone", 0.1, width=0.5))

    def read(rev: str) -> PredictedRun:
        return read_run(paths[rev]) if rev in paths else unreadable(rev)

    found = judge(rows, "uar", read=read)
    p = [
        compare_runs([paths["good"], paths[name]]).pairs[0].test.p["uar"]
        for name in ("like", "weak")
    ]
    assert [found[1].p, found[2].p] == p
    assert np.allclose([found[1].p_holm or 0, found[2].p_holm or 0], holm(p))
    assert [mark(verdict) for verdict in found] == ["*", "=", "", "~"]
    assert found[1].swapped == "20 speakers"
    group = Group("tones", {}, rows, found)
    text = as_text([group], Shown(tuple(rows), ()), "uar")
    assert "swapped as a whole: 20 speakers" in text
    assert "no test: no predictions here" in text
    lines = [line[:7].split() for line in text.splitlines()[2:6]]
    assert lines == [["*", "good"], ["=", "like"], ["weak"], ["~", "gone"]]


def test_the_chosen_unit_is_swapped_and_shared_speakers_are_noted(
    tmp_path: Path,
) -> None:
    """Three people in all of twelve dialogues; the model ranked below tests better."""
    paths = {}
    for k, (name, skill) in enumerate({"a": 0.2, "b": 0.9}.items()):
        cells = FakePredictions(skill=skill, draw=k).rows()
        for each in cells:
            number = int(each[0][1:])
            each[1:3] = [f"s{number % 3}", f"d{number // 5}"]
        paths[name] = FakePredictions().write(tmp_path / f"{name}.csv", cells)
    rows = [row("a", 0.6), row("b", 0.5)]
    found = judge(rows, "uar", read=lambda rev: read_run(paths[rev]))
    assert (found[1].swapped, found[1].shared, mark(found[1])) == ("12 dialogues", 3, "+")
    text = as_text([Group("tones", {}, rows, found)], Shown(tuple(rows), ()), "uar")
    assert (
        "p values too small for conclusions about new speakers. `--unit speaker` tests with" in text
    )
    found = judge(rows, "uar", unit="speaker", read=lambda rev: read_run(paths[rev]))
    assert (found[1].swapped, found[1].shared, found[1].p) == ("3 speakers", 0, 0.25)
    assert found[1].tie is True


def test_runs_that_have_too_little_in_common_fall_back(tmp_path: Path) -> None:
    one = FakePredictions().write(tmp_path / "a.csv")
    other = FakePredictions(classes=("sad", "happy", "angry"), speakers=1, each=2)
    paths = {"a": one, "b": other.write(tmp_path / "b.csv")}
    found = judge([row("a", 0.6), row("b", 0.5)], "uar", read=lambda rev: read_run(paths[rev]))
    assert found[1].basis == "interval"
    assert found[1].why
