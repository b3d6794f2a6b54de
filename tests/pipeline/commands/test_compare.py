"""`heronry compare`: sources of runs, its text, JSON and HTML, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.errors import HeronryError, ParamsError, RunError
from pipeline.command_line.app import app
from pipeline.commands.compare import as_json
from pipeline.compare.comparison import Settings
from pipeline.compare.kinds import Comparisons
from pipeline.compare.page import as_html, as_text, sections
from pipeline.compare.sources import NO_TARGETS, PredictedRun, read_run
from pipeline.evaluation.predictions import read_predictions
from pipeline.metrics.classes import MONITORS
from pipeline.report.evaluate import evaluate, write_report
from tests.support.runs.fake_run import FakeRun, edit_json
from tests.support.runs.predicted_runs import FakePredictions, compare_runs

WEAK = FakePredictions(skill=0.4, draw=1)
GOOD = FakePredictions(skill=0.7, draw=2)
FAST = Settings(permutations=2000)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["compare", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def same(one: PredictedRun, other: PredictedRun) -> bool:
    arrays = ("predictions", "probabilities")
    plain = dict.fromkeys(arrays) | {"name": "", "labels": None, "dropped": {}}
    plain |= {"targets": NO_TARGETS}
    return replace(one, **plain) == replace(other, **plain) and all(  # type: ignore[arg-type]
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def test_a_run_folder_and_its_report_hold_the_same(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3, facts=True).write()
    reports = tmp_path / "reports"
    write_report(evaluate(fake.run, fake.data), reports)
    folder = read_run(str(fake.run))
    assert (folder.seeds, len(folder.items), folder.labels) == ((0, 1), 106, fake.data)
    assert len(folder.dropped) == 2
    assert folder.whose == "blend on fake (cached)"
    for name in ("reports", "workspace", "reports/predictions.csv", "reports/predictions.parquet"):
        assert same(read_run(name), folder)
    (reports / "predictions.csv").unlink()
    assert same(read_run("reports"), folder)
    found = compare_runs([str(fake.run), "workspace"], replace(FAST, flips=3))
    assert found.unit == "dialogue"
    assert found.left_out == ()


def test_the_run_of_a_report_is_stated_and_checked(tmp_path: Path) -> None:
    """By the files themselves, whatever params.yaml selects, and not if they are of two runs."""
    one, other = (FakeRun(tmp_path / name, speakers=24, skill=0.5) for name in "ab")
    reports = tmp_path / "reports"
    write_report(evaluate(one.write().run, one.data), reports)
    (tmp_path / "params.yaml").write_text("fusion: heron\ncorpus: demo\nregime: e2e\n")
    other.write(fusion="stirred")
    text = said("workspace", str(other.run))
    assert "blend on fake (cached)" in text
    assert "stirred on fake (cached)" in text
    assert "heron" not in text
    (tmp_path / "away").mkdir()
    (reports / "predictions.csv").rename(tmp_path / "away/predictions.csv")
    assert read_run("away/predictions.csv").whose is None  # a CSV file alone does not say it
    assert read_run("reports").whose == "blend on fake (cached)"
    for changes in ({"run_fusion": "heron"}, {"predictions_sha256": "0" * 64}):
        content = (reports / "metrics.json").read_bytes()
        edit_json(reports / "metrics.json", **changes)
        with pytest.raises(RunError, match=r"predictions.parquet is not what .*metrics.json was"):
            read_run("workspace")
        (reports / "metrics.json").write_bytes(content)
    (tmp_path / "away/predictions.csv").rename(reports / "predictions.csv")
    assert read_run("workspace").whose == "blend on fake (cached)"
    with (reports / "predictions.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(RunError, match=r"predictions.csv is not what .*metrics.json was computed"):
        read_run("workspace")


def test_few_speakers_in_all_dialogues_are_noted(tmp_path: Path) -> None:
    """In text, JSON and HTML, with the unit that tells of other people."""
    names = []
    for k, run in enumerate((WEAK, GOOD)):
        rows = [[*r[:1], f"s{n % 4}", f"d{n // 5 % 12}", *r[3:]] for n, r in enumerate(run.rows())]
        by_id = {row[0]: row[1:3] for row in rows}
        rows = [[row[0], *by_id[row[0]], *row[3:]] for row in rows]
        names.append(run.write(tmp_path / f"{k}.csv", rows))
    note = (
        "4 speakers occur in several dialogues: intervals are too narrow and p values too small "
        "for conclusions about new speakers."
    )
    text = " ".join(said(*names, "--html", "page.html").split())
    assert "by 4 speakers in 12 dialogues, that every run predicted" in text
    assert text.count(note) == 3  # scores, differences, classes
    assert note in (tmp_path / "page.html").read_text(encoding="utf-8")
    found = json.loads(said(*names, "--json"))
    assert (found["unit"], found["clusters"]) == ("dialogue", 12)
    assert (found["speakers"], found["shared_speakers"]) == (4, 4)
    assert note in " ".join(found["about"]["Scores"])
    whole = json.loads(said(*names, "--json", "--unit", "speaker"))
    assert (whole["unit"], whole["clusters"], whole["shared_speakers"]) == ("speaker", 4, 0)
    test = whole["pairs"][0]["test"]
    assert (test["unit"], test["units"], test["smallest"]) == ("speaker", 4, 2**-3)
    assert note not in str(whole)
    assert CliRunner().invoke(app, ["compare", *names, "--unit", "people"]).exit_code == 2
    with pytest.raises(ParamsError, match="60 test rows have no dialogue, such as 'u000'"):
        said(WEAK.write(tmp_path / "a.csv"), GOOD.write(tmp_path / "b.csv"), "--unit", "dialogue")


def test_dropped_utterances_are_listed_with_their_reason(tmp_path: Path) -> None:
    runs = [FakeRun(tmp_path / str(k), folds=3, speakers=24, dropped=k).write().run for k in (0, 2)]
    (left_out,) = compare_runs([str(run) for run in runs], FAST).left_out
    assert left_out.line() == "left out of A: 2 dropped by B (tone: no frames): u0000, u0001"


def test_text_explains_each_number(tmp_path: Path) -> None:
    names = [run.write(tmp_path / f"{k}.csv") for k, run in enumerate((WEAK, GOOD))]
    text = said(*names, "--flips", "2", "--permutations", "2500")
    for line in (
        "60 test utterances, by 12 speakers, that every run predicted; 3 classes.",
        "bootstrap over 12 speakers, 2000 draws, the same for all runs, widened for that number",
        f"B minus A: {names[1]} against {names[0]}",
        "two-sided permutation test that swaps the two runs' predictions, speaker by speaker (12,",
        "Exact McNemar test of these: p ",
        "4 of ",
    ):
        assert line in " ".join(text.split())
    found = compare_runs(names, replace(FAST, flips=2, permutations=2500))
    change = found.pairs[0].changes["uar"]
    row = next(line for line in text.splitlines() if "UAR" in line and "+" in line)
    assert row.split()[1:4] == [
        f"{change.first:.3f}",
        f"{change.second:.3f}",
        f"{change.value:+.3f}",
    ]
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_different_numbers_of_seeds_are_noted(tmp_path: Path) -> None:
    names = [WEAK.write(tmp_path / "a.csv"), GOOD.with_(seeds=(7,)).write(tmp_path / "b.csv")]
    assert "Runs have different numbers of seeds" in said(*names)


@pytest.mark.slow
def test_json_holds_every_record(tmp_path: Path) -> None:
    names = [run.write(tmp_path / f"{k}.csv") for k, run in enumerate((WEAK, GOOD, WEAK))]
    found = json.loads(said(*names, "--json", "--all-pairs", "--permutations", "2000"))
    assert [run["name"] for run in found["runs"]] == names
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("A", "B"),
        ("A", "C"),
        ("B", "C"),
    ]
    for pair in found["pairs"]:
        assert (
            set(pair["changes"]) == set(pair["test"]["p"]) == set(pair["p_holm"]) == set(MONITORS)
        )
    assert found["pairs"][1]["changes"]["uar"]["value"] == 0
    assert "Runs" in found["about"]


def test_html_is_one_page_that_text_cannot_break(tmp_path: Path) -> None:
    rows = [[row[0], f"<script>{row[1]}", *row[2:]] for row in WEAK.rows()]
    names = [WEAK.write(tmp_path / "<b>.csv", rows), GOOD.write(tmp_path / "b.csv")]
    page = tmp_path / "page.html"
    said(*names, "--html", str(page))
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;s0" in html
    assert "<script" not in html
    assert "<b>.csv" not in html
    assert html.count("<table") == 5


def test_control_characters_of_files_do_not_reach_the_terminal(tmp_path: Path) -> None:
    rows = [[row[0], f"\x1b[2J{row[1]}", *row[2:]] for row in WEAK.rows()]
    found = compare_runs(
        [WEAK.write(tmp_path / "a.csv", rows), GOOD.write(tmp_path / "b.csv")], FAST
    )
    assert "\x1b" not in as_text(sections(found))
    assert "?[2Js0" in as_text(sections(found))
    assert as_html([run.name for run in found.runs], sections(found))
    assert "\x1b" not in as_json(Comparisons(found, None))


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    names = [run.write(tmp_path / f"{k}.csv") for k, run in enumerate((WEAK, GOOD))]
    with pytest.raises(ParamsError, match="cannot write it"):
        said(*names, "--html", str(tmp_path))


def _edited(row: int, column: int, value: Any) -> list[list[Any]]:
    rows = WEAK.rows()
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (WEAK.rows() + WEAK.rows()[:1], r"'u000' occurs 2 times in fold 0 of seed 0"),
        (_edited(0, 6, "bored"), r"label 'bored'; expected one of \['angry', 'happy', 'sad'\]"),
        (_edited(0, 7, ""), "row 1 has no prediction; expected one"),
        (_edited(0, 3, "tset"), "split 'tset'; expected one of"),
        (_edited(0, 1, "s77"), "expected one label, speaker and dialogue for all seeds"),
        (_edited(0, 8, "nan"), "row 1: probabilities .*expected a sum of 1"),
        (_edited(0, 8, "0.9"), "row 1: probabilities .*expected a sum of 1"),
        ([[*row[:7], *row[6:7], *row[8:]] for row in WEAK.rows()], "is not the class of the high"),
        (_edited(0, 4, "x"), "cannot read"),
        ([row for row in WEAK.rows() if row[3] == "valid"], "no rows of the test split"),
    ],
)
def test_bad_predictions_are_refused(tmp_path: Path, rows: list[list[Any]], message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        read_run(WEAK.write(tmp_path / "bad.csv", rows))
    assert "bad.csv" in str(caught.value)


def test_gaps_in_parquet_are_refused(tmp_path: Path) -> None:
    table = read_predictions(Path(WEAK.write(tmp_path / "a.csv")))
    cells = [None, *table.column("label").to_pylist()[1:]]
    at = table.column_names.index("label")
    pq.write_table(table.set_column(at, "label", [cells]), tmp_path / "a.parquet")
    with pytest.raises(RunError, match="row 1 has no label"):
        read_run("a.parquet")


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty holds no run.json and none of"):
        read_run("empty")
    with pytest.raises(RunError, match=r"reports holds no run.json"):
        read_run("workspace")


def test_one_run_is_refused() -> None:
    with pytest.raises(ParamsError, match="given only 'alone'; expected two or more runs"):
        said("alone")


@pytest.mark.slow
@pytest.mark.dvc
def test_experiments_are_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    stage = {"cmd": "mkdir -p reports && cp made.csv reports/predictions.csv"}
    stage |= {"deps": ["made.csv"], "outs": ["reports/predictions.csv"]}  # type: ignore[dict-item]
    WEAK.write(tmp_path / "made.csv")
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stage}}))

    def run(*words: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": ""}
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)

    run("git", "init", "-q")
    run("git", "config", "user.email", "test@example.org")
    run("git", "config", "user.name", "test")
    run("dvc", "init", "-q")
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "Weak")
    expected = read_run(GOOD.write(tmp_path / "made.csv"))
    run("dvc", "exp", "run", "-q", "--name", "better")
    run("git", "reset", "-q", "--hard")
    run("dvc", "checkout", "-q")

    assert same(read_run("better"), expected)
    assert same(read_run("HEAD"), read_run("workspace"))
    assert not same(read_run("better"), read_run("workspace"))
    found = compare_runs(["workspace", "better"], FAST)
    assert [run.name for run in found.runs] == ["workspace", "better"]

    with pytest.raises(ParamsError, match=r"beter: neither a folder or file .* one of .*better"):
        read_run("beter")
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    with pytest.raises(HeronryError, match="dvc exp pull <remote> better"):
        read_run("better")
