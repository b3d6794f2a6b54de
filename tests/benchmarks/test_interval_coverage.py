"""The simulation of intervals: what must hold in every world, and the tables of a quick run."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import interval_coverage
from benchmarks.interval_coverage import METRICS, WORLDS, draw, intervals, main, measure, scored

TRUTH = {"accuracy": 0.616, "uar": 0.572, "macro_f1": 0.562, "ccc": 0.696}


@pytest.mark.parametrize("world", WORLDS)
def test_clusters_are_drawn_as_described(world: str) -> None:
    """Two models that are equally good, on the same utterances of clusters of unequal size."""
    found = draw(WORLDS[world], 2000, np.random.default_rng(1))
    sizes = np.bincount(found.cluster)
    assert len(sizes) == found.clusters == 2000
    assert np.median(sizes) == pytest.approx(WORLDS[world].utterances, rel=0.1)
    assert np.bincount(found.labels) / len(found.labels) == pytest.approx(
        [0.4, 0.3, 0.2, 0.1], abs=0.02
    )
    one, other = ((guess == found.labels).mean() for guess in found.guesses)
    assert one == pytest.approx(other, abs=0.02)
    assert 0.5 < one < 0.7


def test_intervals_differ_as_their_formulas_say() -> None:
    problem = draw(WORLDS["speakers"], 6, np.random.default_rng(3))
    values, left_out, whole = scored(problem, 0, 500, seed=0)["accuracy"]
    found = intervals(values, left_out, float(whole[0]), (0.0, 1.0))
    inner, wide, student = (found[name] for name in ("percentile", "widened", "student"))
    assert wide.low < inner.low < whole[0] < inner.high < wide.high
    assert student.high - whole[0] == pytest.approx(whole[0] - student.low)
    for name in ("quantiles", "bca"):  # no draw is beyond the best or worst
        assert values.min() <= found[name].low < found[name].high <= values.max()


def test_five_clusters_are_covered_better_and_allow_no_alarm_by_swapping_them() -> None:
    found = measure(WORLDS["speakers"], 5, 30, 400, TRUTH)
    before, after = (
        np.mean(list(found["coverage"][m].values())) for m in ("percentile", "widened")
    )
    assert before + 4 < after <= 100
    assert found["alarms"]["clusters"] == 0  # the smallest p is 1/16
    assert found["coverage"]["widened"].keys() == {*METRICS, *(f"{m}, difference" for m in METRICS)}


def test_a_quick_run_prints_three_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interval_coverage, "CLUSTERS", (2, 5))
    monkeypatch.setattr(interval_coverage, "POPULATION", 500)
    main(quick=True)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("|---") for line in lines) == 3
    assert sum(line.startswith("| 5 |") for line in lines) == 3
