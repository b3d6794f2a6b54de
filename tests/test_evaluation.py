"""From run and label folders to the values of metrics.json, the CSV files, and refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as oracle

from features.manifest import read_labels
from pipeline.evaluation import evaluate, headline, write_report
from pipeline.metrics import MONITORS, f1_names
from tests.fake_run import CLASSES, FakeRun, edit_json

ROOT = Path(__file__).parent.parent
SUMMARIES = (*MONITORS, "ovr_accuracy")
FILES = ("metrics.json", "predictions.csv", "history.csv", "confusion.csv", "index.html")


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


def test_majority_is_that_of_each_folds_training_split(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3, each=5).write()
    dropped = json.loads((fake.run / "run.json").read_text(encoding="utf-8"))["dropped"]
    labels = [label for label in read_labels(fake.data) if label.id not in dropped]
    truth: list[str] = []
    guess: list[str] = []
    for fold in range(3):
        train = [label.label for label in labels if label.splits[fold] == "train"]
        test = [label.label for label in labels if label.splits[fold] == "test"]
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
    expected = [name + end for name in SUMMARIES for end in ("", "_low", "_high", "_sd")]
    expected += [f"f1_{name}" for name in CLASSES]
    expected += [f"majority_{name}" for name in MONITORS]
    expected += ["chance_uar", "parameters", "utterances", "dropped", "seeds", "folds"]
    assert list(found) == [*expected, "train_seconds"]
    assert all(np.isfinite(value) and round(value, 6) == value for value in found.values())
    tested = 9 * 12 - 2
    counts = {"parameters": 12345, "utterances": tested, "dropped": 2, "seeds": 2, "folds": 3}
    assert counts.items() <= found.items()


def test_one_seed_has_no_spread_and_one_speaker_no_interval(tmp_path: Path) -> None:
    found = metrics_of(FakeRun(tmp_path, seeds=(4,), speakers=3).write())
    assert [name for name in found if name.endswith(("_sd", "_low", "_high"))] == []
    assert found["seeds"] == 1


def test_a_perfect_model_is_perfect(tmp_path: Path) -> None:
    found = metrics_of(FakeRun(tmp_path, skill=1.0).write())
    assert {found[name] for name in SUMMARIES} == {1.0}
    # macro F1 is over all classes, and a draw of speakers may lack one
    assert {found[f"{name}_low"] for name in SUMMARIES if name != "macro_f1"} == {1.0}


def test_same_input_same_bytes(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    for name in ("first", "second"):
        write_report(evaluate(fake.run, fake.data), tmp_path / name)
    for name in FILES:
        first = (tmp_path / "first" / name).read_bytes()
        assert first
        assert first == (tmp_path / "second" / name).read_bytes()


def test_tables_are_joined_in_order_of_seed_and_fold(fake: FakeRun) -> None:
    head = json.loads((fake.run / "run.json").read_text(encoding="utf-8"))
    edit_json(fake.run / "run.json", seeds=head["seeds"][::-1])
    reports = write_report(evaluate(fake.run, fake.data), fake.root / "reports").parent
    jobs = [(seed, fold) for seed in fake.seeds for fold in range(3)]
    for name in ("predictions.csv", "history.csv"):
        parts = [rows_of(fake.predictions(*job).with_name(name)) for job in jobs]
        assert rows_of(reports / name) == [row for part in parts for row in part]
    pairs = [pair for seed in fake.seeds for pair in zip(*pooled(fake, seed), strict=True)]
    found = rows_of(reports / "confusion.csv")
    assert [(row["label"], row["prediction"]) for row in found] == pairs


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


def _stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.evaluate", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_stage_writes_reports_and_prints_the_headline(tmp_path: Path) -> None:
    FakeRun(tmp_path).write()
    done = _stage(tmp_path, "cached", "fake", "blend")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text(encoding="utf-8"))
    assert headline(metrics) in done.stdout
    assert "reports/index.html" in done.stdout
    assert {path.name for path in (tmp_path / "reports").iterdir()} == set(FILES)


def test_stage_fails_with_a_message_and_no_traceback(tmp_path: Path) -> None:
    FakeRun(tmp_path).write()
    done = _stage(tmp_path, "cached", "fake", "other")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read runs/cached/fake/other/run.json")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "reports").exists()
