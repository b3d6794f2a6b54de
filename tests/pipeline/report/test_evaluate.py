"""From run and label folders to the numbers of the report, the CSV files, and refusals."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.preprocessing import label_binarize

from features.corpus.manifest import read_labels
from pipeline.evaluation.predictions import read_predictions
from pipeline.metrics.classes import MONITORS, f1_names
from pipeline.report.evaluate import evaluate
from pipeline.report.metrics_json import headline
from tests.pipeline.evaluation.test_predictions import write_predictions
from tests.support.runs.fake_run import CLASSES, FakeRun

SUMMARIES = (*MONITORS, "ovr_accuracy", "ovr_weighted_f1")
FILES = (
    *("metrics.json", "details.json", "predictions.csv", "predictions.parquet"),
    *("history.csv", "confusion.csv", "index.html"),
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path, folds=3).write()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pooled(fake: FakeRun, seed: int) -> tuple[list[str], list[str]]:
    rows = [row for fold in range(fake.folds) for row in rows_of(fake.predictions(seed, fold))]
    test = [row for row in rows if row["split"] == "test"]
    return [row["label"] for row in test], [row["prediction"] for row in test]


def metrics_of(fake: FakeRun) -> dict[str, float]:
    return dict(evaluate(fake.run, fake.data).metrics)


def test_scores_pool_folds_and_average_seeds(fake: FakeRun) -> None:
    found = metrics_of(fake)
    pairs = [pooled(fake, seed) for seed in fake.seeds]
    values = {
        "accuracy": [oracle.accuracy_score(*pair) for pair in pairs],
        "uar": [oracle.balanced_accuracy_score(*pair) for pair in pairs],
        "macro_f1": [oracle.f1_score(*pair, average="macro") for pair in pairs],
        "weighted_f1": [oracle.f1_score(*pair, average="weighted") for pair in pairs],
    }
    per_class = np.mean([oracle.f1_score(*p, average=None, labels=CLASSES) for p in pairs], axis=0)
    for name, of_seeds in values.items():
        assert found[name] == pytest.approx(np.mean(of_seeds), abs=1e-6)
        assert found[f"{name}_sd"] == pytest.approx(np.std(of_seeds, ddof=1), abs=1e-6)
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    for name, value in zip(CLASSES, per_class, strict=True):
        assert found[f"f1_{name}"] == pytest.approx(value, abs=1e-6)


def test_validation_scores_are_means_over_trained_models(fake: FakeRun) -> None:
    found = metrics_of(fake)
    jobs = [
        [row for row in rows_of(fake.predictions(seed, fold)) if row["split"] == "valid"]
        for seed in fake.seeds
        for fold in range(fake.folds)
    ]
    pairs = [([r["label"] for r in rows], [r["prediction"] for r in rows]) for rows in jobs]
    each = [oracle.balanced_accuracy_score(*pair) for pair in pairs]
    assert len(set(each)) > 1
    assert found["valid_uar"] == pytest.approx(np.mean(each), abs=1e-6)


def test_majority_is_that_of_each_folds_training_split(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3, each=5).write()
    dropped = json.loads((fake.run / "run.json").read_text(encoding="utf-8"))["dropped"]
    labels = [label for label in read_labels(fake.data) if label.id not in dropped]
    truth: list[str] = []
    guess: list[str] = []
    for fold in range(3):
        train = [label.class_name for label in labels if label.splits[fold] == "train"]
        test = [label.class_name for label in labels if label.splits[fold] == "test"]
        truth += test
        guess += [max(CLASSES, key=train.count)] * len(test)
    found = metrics_of(fake)
    assert found["majority_accuracy"] == pytest.approx(
        oracle.accuracy_score(truth, guess), abs=1e-6
    )
    assert found["majority_uar"] == pytest.approx(
        oracle.balanced_accuracy_score(truth, guess), abs=1e-6
    )
    assert found["majority_weighted_f1"] == pytest.approx(
        oracle.f1_score(truth, guess, average="weighted"), abs=1e-6
    )
    assert found["chance_uar"] == 0.25


def test_metrics_are_flat_numbers_in_a_fixed_order(fake: FakeRun) -> None:
    found = metrics_of(fake)
    ends = ("", "_low", "_high", "_sd", "_fold_mean", "_fold_sd")
    expected = [name + end for name in SUMMARIES for end in ends]
    expected += [f"f1_{name}" for name in CLASSES]
    expected += [f"valid_{name}" for name in MONITORS]
    expected += [f"{kind}_{name}" for kind in ("majority", "chance", "prior") for name in MONITORS]
    proper = ["nll", "brier", "ece", "ece_adaptive"]
    expected += [*proper, *(f"{name}_scaled" for name in proper), "temperature"]
    expected += [f"speaker_accuracy_{end}" for end in ("min", "median", "max")]
    expected += ["parameters", "rows", "speakers", "clusters", "shared_speakers", "rejected"]
    assert list(found) == [*expected, "seeds", "folds", "train_seconds"]
    assert all(re.fullmatch(r"\w+", name) and name == name.lower() for name in found)
    assert all(np.isfinite(value) and round(value, 6) == value for value in found.values())
    tested = 9 * 12 - 2
    counts = {"parameters": 12345, "rows": tested, "rejected": 2, "seeds": 2, "folds": 3}
    assert counts.items() <= found.items()


def test_all_that_a_corpus_and_a_run_may_say_gets_a_key(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3, speakers=12, each=20, facts=True, extras=True).write()
    found = metrics_of(fake)
    assert all(np.isfinite(value) for value in found.values())
    assert found["uar_text_probe_neutral"] == found["uar_lexical_neutral"] == found["uar"]
    assert found["probe_speech_uar"] == 1
    assert found["probe_text_uar"] == 0.25
    assert found["condition_shuffled_text_uar_delta"] == 0
    assert found["condition_without_speech_uar"] == 0.25
    assert found["condition_without_speech_uar_delta"] == pytest.approx(
        0.25 - found["uar"], abs=1e-6
    )
    groups = {"gender_female", "gender_male", "duration_under_2_s", "session_s0", "words_ambiguous"}
    assert {f"uar_{name}" for name in groups} <= found.keys()
    gap = abs(found["uar_gender_female"] - found["uar_gender_male"])
    assert found["uar_gap_gender"] == pytest.approx(gap, abs=2e-6)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_everything_can_be_computed_again_from_the_predictions(fake: FakeRun, suffix: str) -> None:
    """With scikit-learn alone, before rounding, from the file that is published."""
    report = evaluate(fake.run, fake.data)
    write_predictions(fake.root, [job.table for job in report.run.jobs])
    rows = read_predictions(fake.root / f"predictions.{suffix}").to_pydict()
    test = np.array(rows["split"]) == "test"
    columns = {name: np.array(cells)[test] for name, cells in rows.items() if name != "dialogue"}
    shares = np.stack([columns[f"p_{name}"] for name in CLASSES], 1)
    found: dict[tuple[int, int | None], dict[str, float]] = {}
    for seed in fake.seeds:
        for fold in (None, *range(fake.folds)):
            keep = columns["seed"] == seed
            if fold is not None:
                keep &= columns["fold"] == fold
            found[seed, fold] = oracle_scores(
                columns["label"][keep], columns["prediction"][keep], shares[keep]
            )
    for name in MONITORS:
        of_seeds = [found[seed, None][name] for seed in fake.seeds]
        of_folds = [[found[seed, fold][name] for fold in range(3)] for seed in fake.seeds]
        summary = report.summaries[name]
        assert summary.value == pytest.approx(np.mean(of_seeds), abs=1e-12)
        assert summary.sd == pytest.approx(np.std(of_seeds, ddof=1), abs=1e-12)
        assert summary.fold_mean == pytest.approx(np.mean(of_folds), abs=1e-12)
        assert summary.fold_sd == pytest.approx(np.std(np.mean(of_folds, 0), ddof=1), abs=1e-12)
        assert [s.scores[name] for s in report.seeds] == pytest.approx(of_seeds, abs=1e-12)
        each = [job.scores[name] for job in report.jobs]
        assert each == pytest.approx(np.ravel(of_folds).tolist(), abs=1e-12)
    assert report.calibration is not None
    for name in ("nll", "brier"):
        mean = np.mean([found[seed, None][name] for seed in fake.seeds])
        assert getattr(report.calibration.before, name) == pytest.approx(mean, abs=1e-12)


def oracle_scores(labels: Any, guesses: Any, shares: Any) -> dict[str, float]:
    shares = shares / shares.sum(1, keepdims=True)
    return {
        "accuracy": oracle.accuracy_score(labels, guesses),
        "uar": oracle.balanced_accuracy_score(labels, guesses),
        "macro_f1": oracle.f1_score(labels, guesses, average="macro"),
        "weighted_f1": oracle.f1_score(labels, guesses, average="weighted"),
        "nll": oracle.log_loss(labels, shares, labels=CLASSES),
        "brier": 4 * oracle.mean_squared_error(label_binarize(labels, classes=CLASSES), shares),
    }


def test_classes_equal_scikit_learn(fake: FakeRun) -> None:
    report = evaluate(fake.run, fake.data)
    pairs = [pooled(fake, seed) for seed in fake.seeds]
    each = [
        oracle.precision_recall_fscore_support(*pair, labels=CLASSES, zero_division=0)
        for pair in pairs
    ]
    precision, recall, f1, support = np.mean(each, axis=0)
    for k, found in enumerate(report.classes):
        assert found.name == CLASSES[k]
        assert found.precision == pytest.approx(precision[k], abs=1e-12)
        assert found.recall == pytest.approx(recall[k], abs=1e-12)
        assert found.f1 == pytest.approx(f1[k], abs=1e-12)
        assert found.support == support[k]
        assert found.f1 is not None
        assert found.f1_interval is not None
        assert found.f1_interval.low < found.f1 < found.f1_interval.high
    whole = np.sum([oracle.confusion_matrix(*pair, labels=CLASSES) for pair in pairs], 0)
    np.testing.assert_array_equal(report.confusions.sum(0), whole)
    np.testing.assert_allclose(report.shares, whole / whole.sum(1, keepdims=True), atol=1e-12)


def test_one_seed_has_no_spread_and_one_speaker_no_interval(tmp_path: Path) -> None:
    found = metrics_of(FakeRun(tmp_path, seeds=(4,), speakers=3).write())
    assert [name for name in found if name.endswith(("_sd", "_low", "_high"))] == []
    assert found["seeds"] == 1


def test_a_perfect_model_is_perfect(tmp_path: Path) -> None:
    found = metrics_of(FakeRun(tmp_path, skill=1.0, speakers=15).write())
    assert {found[name] for name in SUMMARIES} == {1.0}
    assert {found[f"{name}_low"] for name in SUMMARIES} == {1.0}


def test_a_perfect_fold_that_lacks_a_class_is_perfect(tmp_path: Path) -> None:
    """Those whom fold 0 tests only say "angry": pooled, averaged over folds, and drawn."""
    fake = FakeRun(tmp_path, skill=1.0, folds=3, speakers=12)
    said = [
        replace(label, label="angry") if label.splits[0] == "test" else label
        for label in fake.labels()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeRun, "labels", lambda _: said)
        found = metrics_of(fake.write())
    ends = ("", "_low", "_high", "_fold_mean")
    assert {found[f"{name}{end}"] for name in MONITORS for end in ends} == {1.0}
    assert {found[f"f1_{name}"] for name in CLASSES} == {1.0}
    assert {found[f"valid_{name}"] for name in MONITORS} == {1.0}


def test_a_class_that_the_test_split_lacks_is_left_out(tmp_path: Path) -> None:
    """Nobody says "sad" in the test split, and the model says so at times all the same."""
    fake = FakeRun(tmp_path, extras=True, each=20)
    said = [
        replace(label, label="angry") if label.splits == ("test",) else label
        for label in fake.labels()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeRun, "labels", lambda _: said)
        report = evaluate(fake.write().run, fake.data)
    pairs = [pooled(fake, seed) for seed in fake.seeds]
    expected = np.mean([oracle.f1_score(*pair, average="macro") for pair in pairs])
    assert report.metrics["macro_f1"] == pytest.approx(expected, abs=1e-6)
    assert report.metrics["probe_speech_macro_f1"] == 1  # it is right, and says no other class
    absent = [found for found in report.classes if found.name != "angry"]
    assert [(found.support, found.recall, found.f1, found.f1_interval) for found in absent] == [
        (0, None, None, None)
    ] * 3
    assert [name for name in report.metrics if name.startswith("f1_")] == ["f1_angry"]


def test_f1_names_stay_apart() -> None:
    assert f1_names(["Sad", "sad", "sad 2", "SAD!"]) == (
        "f1_sad",
        "f1_sad_2",
        "f1_sad_2_2",
        "f1_sad_3",
    )


def test_headline_shows_a_dash_where_nothing_is_known() -> None:
    known = dict.fromkeys(MONITORS, 0.5)
    more = {"uar_low": 0.25, "uar_high": 0.75, "uar_sd": 0.0625, "majority_uar": 0.125}
    title, accuracy, uar, *_ = headline(known | more).splitlines()
    assert accuracy.split() == ["accuracy", "0.500", "-", "-", "-"]
    assert uar.split() == ["uar", "0.500", "0.250", "-", "0.750", "0.062", "0.125"]
    assert len(title) == len(accuracy) == len(uar)
