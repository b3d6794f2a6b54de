"""One fold of a protocol alone, with an encoder of its own, and single folds scored together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, recall_score
from typer.testing import CliRunner

from features.corpus.entry import corpus_entry
from features.corpus.manifest import read_labels
from features.errors import ManifestError, ParamsError, RunError
from features.files.csv_text import write_csv
from pipeline.command_line.app import app
from pipeline.compare.sources import read_run
from pipeline.evaluation.predictions import read_predictions
from pipeline.runs.layout import PREDICTIONS
from stages.train.__main__ import main
from tests.features.corpus.test_leak_gate import Project, project
from tests.support.corpora.small_corpus import SmallCorpus

__all__ = ["project"]

FOLDS = {"protocol": "leave_one_speaker_out"}
HEADER = (*PREDICTIONS, "p_sad", "p_happy")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCorpus:
    corpus = SmallCorpus(tmp_path, monkeypatch)
    corpus.four()
    return corpus


@pytest.mark.parametrize("fold", range(4))
def test_a_fold_alone_is_that_of_all(mine: SmallCorpus, fold: int) -> None:
    whole = mine.prepare(**FOLDS).card
    expected = {row.id: (row.splits[fold],) for row in read_labels(mine.out / "labels")}
    utterances = (mine.out / "utterances" / "manifest.jsonl").read_bytes()
    card = mine.prepare(**FOLDS, fold=fold).card
    assert {row.id: row.splits for row in read_labels(mine.out / "labels")} == expected
    assert (card["folds"], card["fold"]) == (1, fold)
    assert "fold" not in whole
    assert card["counts"] == [whole["counts"][fold]]
    # What extraction reads is the same: no feature is computed again.
    assert (mine.out / "utterances" / "manifest.jsonl").read_bytes() == utterances


def test_folds_that_are_not_there(mine: SmallCorpus) -> None:
    with pytest.raises(ParamsError, match=r"fold 4 of a protocol of 4 here; .* 0 to 3"):
        mine.prepare(**FOLDS, fold=4)
    with pytest.raises(ParamsError, match="fold: given -1; expected an integer from 0"):
        corpus_entry("mine", {"kind": "manifest", "fold": -1})


@pytest.mark.slow
def test_an_encoder_of_one_fold_passes_there_alone(project: Project) -> None:
    project.features(**FOLDS, fold=2)
    labels = read_labels(Path("data/mine/labels"))
    train = {label.id for label in labels if label.splits == ("train",)}
    project.tuned_on(lambda id: id in train)
    project.features(**FOLDS, fold=2)
    main("mine", "m", workers=1)
    run = json.loads(Path("runs/cached/mine/m/run.json").read_text())
    assert run["folds"] == 1
    for others in ({"fold": 1}, {"fold": None}):
        project.features(**FOLDS, **others)
        with pytest.raises(ManifestError, match="slot text, backbone tuned"):
            main("mine", "m", workers=1)


def predictions(path: Path, rows: list[tuple[Any, ...]]) -> str:
    """A table of `(id, seed, label, prediction)`, all of fold 0."""
    write_csv(
        path,
        HEADER,
        [
            (id, f"s{id}", "", "test", 0, seed, label, guess, *shares(guess))
            for id, seed, label, guess in rows
        ],
    )
    return str(path)


def shares(guess: str) -> tuple[str, str]:
    return ("0.75", "0.25") if guess == "sad" else ("0.125", "0.875")


A = [
    ("0", 0, "sad", "sad"),
    ("1", 0, "happy", "sad"),
    ("0", 1, "sad", "sad"),
    ("1", 1, "happy", "happy"),
]
B = [("2", 0, "sad", "happy"), ("3", 0, "happy", "happy"), ("4", 0, "happy", "happy")]
B += [("2", 1, "sad", "sad"), ("3", 1, "happy", "sad"), ("4", 1, "happy", "happy")]


def test_joined_folds_are_scored_together(tmp_path: Path) -> None:
    runs = [predictions(tmp_path / "a.csv", A), predictions(tmp_path / "b.csv", B)]
    result = CliRunner().invoke(app, ["join", *runs, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    table = read_predictions(tmp_path / "out" / "predictions.csv").to_pydict()
    assert list(zip(table["id"], table["fold"], table["seed"], strict=True)) == [
        *[("0", 0, 0), ("1", 0, 0), ("0", 0, 1), ("1", 0, 1)],
        *[("2", 1, 0), ("3", 1, 0), ("4", 1, 0), ("2", 1, 1), ("3", 1, 1), ("4", 1, 1)],
    ]
    assert table["p_happy"][1] == 0.25
    by_seed = [[row for row in A + B if row[1] == seed] for seed in (0, 1)]
    pairs = [([row[2] for row in rows], [row[3] for row in rows]) for rows in by_seed]
    wa = sum(accuracy_score(*pair) for pair in pairs) / 2
    uar = sum(recall_score(*pair, average="macro") for pair in pairs) / 2
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert f"{wa:.4f} pooled" in lines["accuracy"]
    assert f"{uar:.4f} pooled" in lines["uar"]
    # Fold 0: 0.5 and 1; fold 1: 2/3 and 2/3.
    assert f"mean over folds {(0.75 + 2 / 3) / 2:.4f}" in lines["accuracy"]
    # `compare` reads it as a run of two folds.
    run = read_run(str(tmp_path / "out"))
    assert list(run.items) == [(0, "0"), (0, "1"), (1, "2"), (1, "3"), (1, "4")]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (A, "'0' is tested in .*a.csv and in .*b.csv"),
        (B[:3], r"seeds \[0\]; expected .* \[0, 1\]"),
        (B[:5], r"1 test rows that some seeds lack"),
    ],
)
def test_what_is_not_one_fold_each(
    tmp_path: Path, other: list[tuple[Any, ...]], message: str
) -> None:
    runs = [predictions(tmp_path / "a.csv", A), predictions(tmp_path / "b.csv", other)]
    result = CliRunner().invoke(app, ["join", *runs, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, RunError)
    with pytest.raises(RunError, match=message):
        raise result.exception
    assert not (tmp_path / "out").exists()
