"""The files of reports/, and the stage that writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import ManifestError
from pipeline.evaluation.identity import KEYS
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import HEADLINE, read_all
from tests.pipeline.report.test_evaluate import FILES, pooled, rows_of
from tests.support.paths import ROOT
from tests.support.runs.fake_run import FakeRun, edit_json


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path, folds=3).write()


@pytest.mark.slow
def test_same_input_same_bytes(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    for name in ("first", "second"):
        write_report(evaluate(fake.run, fake.data), tmp_path / name)
    for name in FILES:
        first = (tmp_path / "first" / name).read_bytes()
        assert first
        assert first == (tmp_path / "second" / name).read_bytes()


@pytest.mark.slow
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


def test_numbers_are_a_headline_and_details_that_name_their_run(fake: FakeRun) -> None:
    report = evaluate(fake.run, fake.data)
    reports = write_report(report, fake.root / "reports").parent
    metrics, details = (
        json.loads((reports / name).read_text(encoding="utf-8"))
        for name in ("metrics.json", "details.json")
    )
    assert tuple(metrics) == (*KEYS, *HEADLINE)
    assert len(HEADLINE) <= 14
    assert metrics.keys() & details.keys() == set(KEYS)
    assert read_all(reports) == {key: metrics[key] for key in KEYS} | dict(report.metrics)
    edit_json(reports / "details.json", predictions_sha256="0" * 64)
    with pytest.raises(ManifestError, match=r"details.json and metrics.json .* different runs"):
        read_all(reports)


def test_one_file_of_an_older_release_is_read(fake: FakeRun) -> None:
    """Even beside the details.json that a newer release left there."""
    reports = write_report(evaluate(fake.run, fake.data), fake.root / "reports").parent
    whole = read_all(reports)
    (reports / "metrics.json").write_text(json.dumps(whole), encoding="utf-8")
    edit_json(reports / "details.json", predictions_sha256="0" * 64)
    assert read_all(reports) == whole
    (reports / "details.json").unlink()
    assert read_all(reports) == whole


def _stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.evaluate", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "DVC_EXP_NAME": "my-experiment"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_stage_writes_reports_and_names_the_page(tmp_path: Path) -> None:
    FakeRun(tmp_path).write()
    done = _stage(tmp_path, "cached", "fake", "blend")
    assert (done.returncode, done.stderr) == (0, "")
    said = "reports/index.html: blend on fake (cached); `heronry show` prints its scores\n"
    assert done.stdout == said
    page = (tmp_path / "reports/index.html").read_text(encoding="utf-8")
    assert "experiment <b>my-experiment</b>" in page
    assert {path.name for path in (tmp_path / "reports").iterdir()} == set(FILES)


@pytest.mark.slow
def test_stage_fails_with_a_message_and_no_traceback(tmp_path: Path) -> None:
    FakeRun(tmp_path).write()
    done = _stage(tmp_path, "cached", "fake", "other")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read runs/cached/fake/other/run.json")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "reports").exists()
