"""`heronry challenge`: files of the MSP-Podcast challenge from a run's unlabelled utterances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from features.corpus.manifest import Label
from features.errors import HeronryError, RunError
from features.files.csv_text import write_csv
from features.files.records import write_json, write_rows
from pipeline.command_line.app import app
from pipeline.runs.layout import Columns, digests
from tests.support.runs.fake_run import FakeRun, edit_json, edit_lines

CLASSES = ("neutral", "happy", "other")
ATTRIBUTES = {"arousal": (1.0, 7.0), "valence": (1.0, 7.0), "dominance": (1.0, 7.0)}
IDS = ("MSP-PODCAST_test3_0002", "MSP-PODCAST_test3_0010", "MSP-PODCAST_test3_0001")
# Of two seeds: shares of the three classes, and arousal, valence, dominance.
SHARES = {
    0: ((0.5, 0.4, 0.1), (0.1, 0.2, 0.7), (0.6, 0.4, 0.0)),
    1: ((0.1, 0.8, 0.1), (0.2, 0.1, 0.7), (0.6, 0.4, 0.0)),
}
VALUES = {
    0: ((1.0, 7.0, 2.0), (3.0, 4.0, 5.0), (4.0, 4.0, 4.0)),
    1: ((2.0, 7.0, 3.0), (3.5, 4.0, 5.0), (4.0, 4.0, 4.123456789)),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two seeds that predicts classes and attributes of three unlabelled utterances."""
    fake = FakeRun(tmp_path)
    fake.data.mkdir(parents=True)
    labels = [Label(id, None, "unknown", splits=("unlabelled",)) for id in IDS]
    write_rows(fake.data / "labels.jsonl", labels)
    targets = {
        "tasks": ["classes", "attributes"],
        "attributes": ATTRIBUTES,
        "genders": [],
        "losses": {"classes": "ce", "attributes": "ccc"},
        "weights": {"classes": 1.0, "attributes": 1.0},
    }
    head = fake.head({}) | {"version": 2, "classes": CLASSES, "targets": targets}
    columns = Columns(("classes", "attributes"), CLASSES, tuple(ATTRIBUTES)).predictions
    for seed in fake.seeds:
        rows = [
            [id, "unknown", "", "unlabelled", 0, seed, "", "happy", *shares, "", "", "", *values]
            for id, shares, values in zip(IDS, SHARES[seed], VALUES[seed], strict=True)
        ]
        folder = fake.run / f"seed_{seed}" / "fold_0"
        folder.mkdir(parents=True)
        write_csv(folder / "unlabelled.csv", columns, rows)
    write_json(fake.run / "run.json", head | {"files": digests(fake.run)})
    return fake.run


def challenge(run: Path, task: int) -> tuple[str, list[str]]:
    """What is said, and the lines of the file."""
    out = run.parents[3] / "made" / "file.csv"
    words = ["challenge", str(run), "--task", str(task), "--out", str(out)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output, out.read_text().splitlines()


def test_classes_are_letters_of_the_highest_mean_probability(run: Path) -> None:
    said, lines = challenge(run, 1)
    # `other`, which the challenge's test set does not have, is never chosen.
    assert lines == [
        "FileName,EmoClass",
        "MSP-PODCAST_test3_0001.wav,N",
        "MSP-PODCAST_test3_0002.wav,H",
        "MSP-PODCAST_test3_0010.wav,N",
    ]
    assert "3 utterances, mean of 2 trained models" in said
    assert "N 2, H 1" in said


def test_attributes_are_means_in_the_order_of_the_header(run: Path) -> None:
    said, lines = challenge(run, 2)
    assert lines == [
        "FileName,EmoAct,EmoVal,EmoDom",
        "MSP-PODCAST_test3_0001.wav,4.000000,4.000000,4.061728",
        "MSP-PODCAST_test3_0002.wav,1.500000,7.000000,2.500000",
        "MSP-PODCAST_test3_0010.wav,3.250000,4.000000,5.000000",
    ]
    assert "EmoVal 5.00 (sd 1.41)" in said


def edited(
    run: Path, change: Callable[[list[str]], list[str]], seeds: Sequence[int] = (0, 1)
) -> None:
    for seed in seeds:
        edit_lines(run / f"seed_{seed}" / "fold_0" / "unlabelled.csv", change)
    edit_json(run / "run.json", files=digests(run))


def cell(at: int, text: str) -> Callable[[list[str]], list[str]]:
    """Replace a cell of the first row."""

    def change(lines: list[str]) -> list[str]:
        cells = lines[1].split(",")
        cells[at] = text
        return [lines[0], ",".join(cells), *lines[2:]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"lacks predictions of 1 unlabelled .*'MSP-PODCAST_test3_0001'"),
        (cell(0, IDS[1]), rf"FileName '{IDS[1]}\.wav' occurs 2 times; expected once"),
        (cell(0, f"{IDS[1]}.wav"), rf"FileName '{IDS[1]}\.wav' occurs 2 times"),
        (cell(14, "7.5"), r"unlabelled\.csv, line 2: v_arousal is 7\.5; expected 1 to 7"),
        (cell(14, ""), r"line 2: v_arousal is nan; expected 1 to 7"),
        (cell(3, "test"), r"split is 'test'; expected one of \['unlabelled'\]"),
    ],
)
def test_rows_that_the_challenge_would_not_take_are_refused(
    run: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    edited(run, change)
    with pytest.raises(RunError, match=message):
        challenge(run, 2)
    assert not (run.parents[3] / "made").exists()


def test_runs_of_other_utterances_classes_or_scales_are_refused(run: Path) -> None:
    edited(run, lambda lines: lines[:-1], seeds=(1,))
    with pytest.raises(RunError, match="hold different utterances; expected the same of all seeds"):
        challenge(run, 1)
    edit_json(run / "run.json", files={})
    with pytest.raises(RunError, match="is not as training wrote it"):
        challenge(run, 1)
    (run / "seed_0" / "fold_0" / "unlabelled.csv").unlink()
    with pytest.raises(RunError, match=r"is not there; expected predictions of .* `unlabelled`"):
        challenge(run, 1)


@pytest.mark.parametrize(
    ("task", "head", "message"),
    [
        (
            1,
            {"classes": ["neutral", "joy", "other"]},
            r"predicts the classes .*expected those of ta",
        ),
        (2, {"attributes": {"arousal": (1, 7)}}, r"does not predict valence, dominance; expected"),
        (
            2,
            {"attributes": {**ATTRIBUTES, "valence": (1, 5)}},
            r"valence from 1 to 5; expected the s",
        ),
    ],
)
def test_runs_that_predict_something_else_are_refused(
    run: Path, task: int, head: dict[str, Any], message: str
) -> None:
    if "attributes" in head:
        targets = {"tasks": ["classes", "attributes"], "genders": [], "losses": {}, "weights": {}}
        head = {"targets": targets | head}
    edit_json(run / "run.json", **head)
    with pytest.raises(HeronryError, match=message):
        challenge(run, task)
