"""Calibration against scikit-learn, and properties of temperature scaling."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss, mean_squared_error

from features.files.csv_text import write_csv
from pipeline.evaluation.calibration import (
    BOUNDS,
    brier,
    calibrate,
    expected_error,
    fit_temperature,
    nll,
    reliability,
    scale,
)
from pipeline.evaluation.run_folder import RunFolder
from tests.support.runs.fake_run import CLASSES, FakeRun

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def honest(rows: int, seed: int = 0, classes: int = 4) -> tuple[Floats, Ints]:
    """Probabilities, and labels that are drawn by them."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 0.7), rows)
    labels = (shares.cumsum(1) < rng.random((rows, 1))).sum(1)
    return shares, np.minimum(labels, classes - 1)


def test_scores_equal_scikit_learn() -> None:
    shares, labels = honest(300)
    assert nll(shares, labels) == pytest.approx(log_loss(labels, shares), abs=1e-12)
    # the mean over the classes, too, of squared differences
    expected = 4 * mean_squared_error(np.eye(4)[labels], shares)
    assert brier(shares, labels) == pytest.approx(expected, abs=1e-12)


def test_a_probability_of_zero_is_clipped_as_scikit_learn_does() -> None:
    shares, labels = np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([1, 1])
    found = nll(shares, labels)
    assert np.isfinite(found)
    assert found == pytest.approx(log_loss(labels, shares, labels=[0, 1]), abs=1e-12)
    assert brier(shares, labels) == pytest.approx((2 + 2 * 0.0625) / 2)
    assert np.isfinite(scale(shares, 2.0)).all()


def test_calibration_error_by_hand() -> None:
    """Bins of (low, high]: three rows at most 0.6, one above 0.9."""
    confidence = np.array([0.55, 0.6, 0.58, 0.95])
    correct = np.array([1.0, 0.0, 0.0, 1.0])
    first, last = reliability(confidence, correct, bins=10)
    assert (first.count, last.count) == (3, 1)
    assert (first.low, first.high) == pytest.approx((0.5, 0.6))
    assert first.confidence == pytest.approx(0.57666666666)
    assert first.accuracy == pytest.approx(1 / 3)
    expected = (3 * abs(1 / 3 - np.mean([0.55, 0.6, 0.58])) + abs(1 - 0.95)) / 4
    assert expected_error((first, last)) == pytest.approx(expected, abs=1e-12)


def test_adaptive_bins_hold_as_many_rows_and_keep_equal_ones_together() -> None:
    confidence = np.random.default_rng(0).permutation(np.linspace(0.3, 0.9, 150))
    counts = [point.count for point in reliability(confidence, confidence, adaptive=True)]
    assert counts == [10] * 15
    ties = np.repeat([0.5, 1.0], [10, 90])
    points = reliability(ties, ties, adaptive=True)
    assert [point.count for point in points] == [10, 90]
    shuffled = np.random.default_rng(1).permutation(ties)
    assert reliability(shuffled, shuffled, adaptive=True) == points


def test_one_bin_is_the_gap_between_confidence_and_accuracy() -> None:
    shares, labels = honest(200)
    confidence, correct = shares.max(1), (shares.argmax(1) == labels).astype(float)
    gap = abs(confidence.mean() - correct.mean())
    for adaptive in (False, True):
        (point,) = reliability(confidence, correct, adaptive=adaptive, bins=1)
        assert expected_error((point,)) == pytest.approx(gap, abs=1e-12)


def test_honest_probabilities_need_no_temperature_and_have_little_error() -> None:
    shares, labels = honest(20_000)
    assert fit_temperature(shares, labels) == pytest.approx(1, abs=0.02)
    correct = (shares.argmax(1) == labels).astype(float)
    assert expected_error(reliability(shares.max(1), correct)) < 0.015


@pytest.mark.parametrize("factor", [0.4, 1.7, 4.0])
def test_temperature_undoes_what_sharpened_the_probabilities(factor: float) -> None:
    shares, labels = honest(2_000)
    plain = fit_temperature(shares, labels)
    sharper = scale(shares, 1 / factor)
    assert fit_temperature(sharper, labels) == pytest.approx(factor * plain, rel=1e-5)


def test_the_fitted_temperature_is_the_best_one() -> None:
    shares, labels = honest(500)
    sharp = scale(shares, 0.5)
    best = fit_temperature(sharp, labels)
    lowest = nll(scale(sharp, best), labels)
    for other in np.geomspace(*BOUNDS, 200):
        assert lowest <= nll(scale(sharp, other), labels) + 1e-9


def test_scaling_keeps_predictions_and_one_changes_nothing() -> None:
    shares, _ = honest(300)
    np.testing.assert_allclose(scale(shares, 1.0), shares, atol=1e-12)
    for temperature in (0.1, 3.0):
        np.testing.assert_array_equal(scale(shares, temperature).argmax(1), shares.argmax(1))


def test_a_validation_split_without_errors_ends_at_the_bound() -> None:
    shares, _ = honest(50)
    assert fit_temperature(shares, shares.argmax(1)) == pytest.approx(BOUNDS[0], rel=1e-3)


def rewrite(fake: FakeRun, split: str, shares: list[float] | None) -> None:
    """Give all rows of a split of each job the same probabilities; None: remove the rows."""
    for seed in fake.seeds:
        path = fake.predictions(seed)
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        kept = []
        for row in rows:
            if row[3] == split and shares is None:
                continue
            if row[3] == split and shares is not None:
                row[-len(CLASSES) :] = map(str, shares)
                row[7] = CLASSES[int(np.argmax(shares))]
            kept.append(row)
        write_csv(path, header, kept)


def test_temperatures_come_from_the_validation_rows_alone(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    before = calibrate(RunFolder.read(fake.run).jobs)
    rewrite(fake, "test", [0.7, 0.1, 0.1, 0.1])
    after = calibrate(RunFolder.read(fake.run).jobs)
    assert after.temperatures == before.temperatures
    assert after.before != before.before
    rewrite(fake, "valid", [0.7, 0.1, 0.1, 0.1])
    assert calibrate(RunFolder.read(fake.run).jobs).temperatures != before.temperatures


def test_without_validation_rows_nothing_is_scaled(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    rewrite(fake, "valid", None)
    found = calibrate(RunFolder.read(fake.run).jobs)
    assert (found.after, found.reliability_after, found.temperatures) == (None, None, ())
    assert found.before.nll > 0


def test_labels_of_probability_zero_are_counted(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    rewrite(fake, "test", [1, 0, 0, 0])
    run = RunFolder.read(fake.run)
    found = calibrate(run.jobs)
    others = sum(int((job.labels[job.test] != 0).sum()) for job in run.jobs)
    assert found.clipped == others > 0
    assert np.isfinite(found.before.nll)


def test_rounded_probabilities_are_divided_by_their_sum(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    rewrite(fake, "test", [0.5, 0.25, 0.125, 0.125])
    exact = calibrate(RunFolder.read(fake.run).jobs)
    rewrite(fake, "test", [0.5002, 0.2501, 0.12505, 0.12505])
    assert vars(calibrate(RunFolder.read(fake.run).jobs).before) == pytest.approx(
        vars(exact.before), abs=1e-12
    )


def test_every_row_is_in_the_reliability_plot(tmp_path: Path) -> None:
    run = RunFolder.read(FakeRun(tmp_path, folds=3).write().run)
    found, rows = calibrate(run.jobs), sum(int(job.test.sum()) for job in run.jobs)
    assert found.reliability_after is not None
    for points in (found.reliability, found.reliability_after, found.reliability_adaptive):
        assert sum(point.count for point in points) == rows
        for point in points:
            assert point.low - 1e-12 <= point.confidence <= point.high + 1e-12
