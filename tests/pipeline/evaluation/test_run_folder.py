"""Reading run folders, and refusing damaged ones with file, line and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from features.corpus.manifest import read_labels
from features.errors import HeronryError
from features.files.records import write_json, write_rows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.report.evaluate import evaluate
from tests.support.runs.fake_run import CLASSES, FakeRun, edit_json, edit_lines


def test_reads_what_is_there(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, seeds=(3, 1), folds=2).write()
    run = RunFolder.read(fake.run)
    assert (run.regime, run.corpus, run.fusion) == ("cached", "fake", "blend")
    assert (run.classes, run.seeds, run.folds) == (CLASSES, (1, 3), 2)
    assert [(job.seed, job.fold) for job in run.jobs] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    for job in run.jobs:
        assert [CLASSES[k] for k in job.labels] == list(job.table.column("label"))
        assert [CLASSES[k] for k in job.predictions] == list(job.table.column("prediction"))
        splits = ["test" if test else "valid" for test in job.test]
        assert splits == list(job.table.column("split"))
        assert job.history.numbers("epoch").tolist() == [1, 2, 3, 4]


def replace(old: str, new: str) -> Callable[[FakeRun], None]:
    """An edit of the first predictions.csv."""

    def edit(fake: FakeRun) -> None:
        text = fake.predictions().read_text(encoding="utf-8")
        assert old in text
        fake.predictions().write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def lines(
    change: Callable[[list[str]], list[str]], name: str = "predictions.csv"
) -> Callable[[FakeRun], None]:
    """An edit of the lines of a file of the first job."""
    return lambda fake: edit_lines(fake.predictions().with_name(name), change)


def head(**fields: object) -> Callable[[FakeRun], None]:
    return lambda fake: edit_json(fake.run / "run.json", **fields)


def forget_labels(fake: FakeRun) -> None:
    write_rows(fake.data / "labels.jsonl", read_labels(fake.data)[:50])
    edit_json(fake.data / "card.json", counts=[])  # a card that says nothing of them


def relabel(fake: FakeRun) -> None:
    path = fake.data / "labels.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("angry", "sad"), encoding="utf-8")
    edit_json(fake.data / "card.json", counts=[])


def bored(fake: FakeRun) -> None:
    path = fake.data / "labels.jsonl"
    text = path.read_text(encoding="utf-8")
    label = read_labels(fake.data)[0].label
    path.write_text(text.replace(f'"{label}"', '"bored"', 1), encoding="utf-8")


def misspell(fake: FakeRun) -> None:
    path = fake.run / "run.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"parameters"', '"parametres"'), encoding="utf-8")


def exchange_predictions(text: list[str]) -> list[str]:
    rows = [line.split(",") for line in text]
    next(row for row in rows[1:] if row[7] == "sad")[7] = "happy"
    return [",".join(row) for row in rows]


REFUSALS: dict[str, tuple[Callable[[FakeRun], object], str]] = {
    "no run.json": (lambda f: (f.run / "run.json").unlink(), "cannot read .*run.json"),
    "other version": (head(version=9), "run.json: version: given 9; expected one of 1"),
    "field of another type": (head(folds="2"), "run.json: folds: given '2'; expected an integer"),
    "class twice": (
        head(classes=["a", "a"]),
        "run.json: classes: .*expected each once",
    ),
    "no predictions": (lambda f: f.predictions().unlink(), "cannot read .*predictions.csv"),
    "missing fold": (head(folds=2), "2 folds, and seed_0/fold_1 is not there"),
    "missing column": (replace(",label,", ","), r"predictions.csv: .*missing \['label'\]"),
    "extra column": (replace("p_sad\n", "p_sad,x\n"), r"predictions.csv: .*unexpected \['x'\]"),
    "short row": (replace(",test,0,0", ",test,0"), "predictions.csv, line .*11 cells; expected 12"),
    "alien class": (replace(",sad,", ",bored,"), "line .* is 'bored'; expected one of .*'angry'"),
    "alien split": (replace(",test,", ",train,"), "line .*split is 'train'"),
    "alien seed": (replace(",test,0,0,", ",test,0,1,"), "line .*seed is '1'"),
    "no number": (replace(",0.", ",zero."), "line .*expected a number"),
    "wrong sum": (replace(",0.", ",1."), "line .*expected a sum of 1"),
    "probability that is NaN": (replace("0.", "nan#"), "line"),
    "id twice": (lines(lambda x: [*x, x[-1]]), "line .*a second time"),
    "no test rows": (
        lines(lambda x: [line for line in x if ",test," not in line]),
        "predictions.csv: no rows of the test split",
    ),
    "row lost": (
        lines(lambda x: x[:-1]),
        "1 test utterances are neither predicted nor listed as dropped",
    ),
    "unknown id": (forget_labels, "line .*is not in labels.jsonl"),
    "other labels": (relabel, r"line .*labels.jsonl: \['speaker \d', 'd\d', 'valid', 'sad'\]"),
    "other speaker": (replace(",speaker 5,", ",speaker 4,"), "line .*labels.jsonl: .'speaker 5'"),
    "other dialogue": (replace(",d2,", ",d0,"), "line .*labels.jsonl: .'speaker 5', 'd2'"),
    "other classes": (
        lambda f: edit_json(f.data / "card.json", classes=list(CLASSES[::-1])),
        r"card.json: classes \['sad', .*; expected that of",
    ),
    "other corpus": (
        lambda f: edit_json(f.data / "card.json", corpus="demo"),
        "card.json: corpus 'demo'; expected that of .*run.json, 'fake'",
    ),
    "seed left out": (head(seeds=[1]), "names the seeds .1. and 1 folds, and seed_0/fold_0 is the"),
    "a huge number of folds": (head(folds=10**6), "folds, and seed_0/fold_1 is not there"),
    "other dropped": (head(utterances=105), "run.json: 105 utterances and 2 dropped; .* 108 of"),
    "misspelt field": (misspell, r"parametres: given an unknown key; .*did you mean 'parameters'"),
    "valid row lost": (
        lines(lambda x: [x[0], *x[2:]]),
        "1 valid utterances are neither predicted nor listed",
    ),
    "not the likeliest": (
        lines(exchange_predictions),
        "line .*prediction is not the class of the high",
    ),
    "epoch lost": (
        lines(lambda x: [x[0], *x[2:]], "history.csv"),
        "history.csv, line 2: epoch is '2'; expected 1",
    ),
    "label outside": (bored, "labels.jsonl, line 1: label 'bored' of 'u0000'; expected one of"),
    "alien leak verdict": (
        lambda f: write_json(f.run / "leaks.json", {"allowed": 3}),
        "leaks.json: allowed: given 3; expected a list",
    ),
    "several best epochs": (
        lines(lambda x: [re.sub(",0$", ",1", line) for line in x], "history.csv"),
        "history.csv: 4 epochs are marked best; expected one",
    ),
    "binary": (lambda f: f.predictions().write_bytes(b"\xff\xfe"), "is no CSV file in UTF-8"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(case: str, tmp_path: Path) -> None:
    spoil, complaint = REFUSALS[case]
    fake = FakeRun(tmp_path).write()
    evaluate(fake.run, fake.data)
    spoil(fake)
    with pytest.raises(HeronryError, match=complaint) as caught:
        evaluate(fake.run, fake.data)
    assert "`dvc repro`" in str(caught.value)
