"""What of a corpus root `prepare` depends on: the record that DVC sees, and what check says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import features.corpus.sources as sources
from features.corpus.entry import corpus_entry
from features.corpus.sources import (
    changes_since,
    differences,
    record_path,
    renew_record,
    take_record,
)
from features.errors import ManifestError, ParamsError
from features.files.reading import file_sha256
from pipeline.commands.check import corpus_problems
from pipeline.commands.plan import corpus_changes
from stages.look.__main__ import main as look
from stages.prepare.__main__ import main as prepare
from tests.pipeline.commands.test_check import params
from tests.support.corpora.small_corpus import SmallCorpus
from tests.support.paths import ROOT

ENTRY = corpus_entry("mine", {"kind": "manifest"})


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCorpus:
    made = SmallCorpus(tmp_path, monkeypatch)
    made.four()
    entry = "{kind: manifest, protocol: official}"
    rest = "fusion: m\nregime: cached\ncorpus: mine\nseeds: null\ntrain: {}\nbackbones: {}\n"
    Path("params.yaml").write_text(f"{rest}models: {{}}\ncorpora: {{mine: {entry}}}\n")
    return made


def relabel(mine: SmallCorpus) -> None:
    mine.table(*(row.replace("sad", "angry") for row in mine.rows()))


def test_equal_copies_have_equal_records(mine: SmallCorpus, monkeypatch: Any) -> None:
    """Neither times nor paths of the machine, nor what macOS and `prepare` leave there."""
    before = take_record(ENTRY)
    copy = mine.root.with_name("elsewhere")
    shutil.copytree(mine.root, copy, copy_function=shutil.copyfile)
    for name in ("._0.wav", ".cache/1.wav", "heronry_audio/train/2.wav", "notes.txt"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x")
    (copy / "loop").symlink_to(copy)
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(copy))
    assert take_record(ENTRY) == before
    assert before["audio"]["files"] == 4
    assert set(before["tables"]) == {"manifest.csv"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (relabel, "manifest.csv was edited"),
        (lambda mine: mine.audio("new.wav"), "5 audio files"),
        (lambda mine: mine.audio("0.wav", 0.5), "4 audio files"),
        (lambda mine: (mine.root / "0.wav").rename(mine.root / "5.wav"), "other names"),
        (lambda mine: (mine.root / "0.wav").unlink(), "3 audio files"),
    ],
)
def test_whatever_changes_the_rows_changes_the_record(
    mine: SmallCorpus, change: Callable[[SmallCorpus], None], told: str
) -> None:
    before = take_record(ENTRY)
    change(mine)
    (found,) = differences(before, take_record(ENTRY))
    assert told in found


def test_many_tables_of_a_folder_are_one_entry(mine: SmallCorpus, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "FEW", 1)
    entry = corpus_entry("mine", {"kind": "manifest", "file": "parts/*.csv"})
    for name in ("a", "b"):
        mine.table(*mine.rows())
        (mine.root / "parts").mkdir(exist_ok=True)
        (mine.root / "manifest.csv").rename(mine.root / "parts" / f"{name}.csv")
    before = take_record(entry)
    assert set(before["tables"]) == {"parts/*.csv"}
    (mine.root / "parts" / "a.csv").rename(mine.root / "parts" / "c.csv")
    assert "parts/*.csv was edited" in differences(before, take_record(entry))[0]


def test_large_tables_are_read_once(mine: SmallCorpus, monkeypatch: Any) -> None:
    """But again after an edit of equal length, even one that keeps the modification time."""
    monkeypatch.setattr(sources, "REMEMBERED_BYTES", 1)
    monkeypatch.setattr(sources, "settled", lambda *_: True)
    table = mine.root / "manifest.csv"
    read: list[Path] = []

    def heard(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(sources, "file_sha256", heard)
    before, again = take_record(ENTRY), take_record(ENTRY)
    assert (before, read) == (again, [table])
    status = table.stat()
    table.write_text(table.read_text().replace("happy", "angry"))
    os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert take_record(ENTRY) != before
    assert len(read) == 2


def test_without_a_root_the_record_stays(mine: SmallCorpus, monkeypatch: Any) -> None:
    assert renew_record(ENTRY)[1] is None
    record = record_path("mine").read_bytes()
    relabel(mine)
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    kept, why = renew_record(ENTRY)
    assert kept == json.loads(record)
    assert "has no root" in str(why)
    assert record_path("mine").read_bytes() == record
    assert corpus_changes(params()) == []
    record_path("mine").unlink()
    with pytest.raises(ParamsError, match="has no root"):
        renew_record(ENTRY)


def test_of_a_generated_corpus_nothing_can_change(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    demo = corpus_entry("demo", {"kind": "demo"})
    assert renew_record(demo) == (take_record(corpus_entry("other", {"kind": "demo"})), None)
    committed = ROOT / "sources" / "demo.json"
    assert record_path("demo").read_bytes() == committed.read_bytes()


def test_check_and_plan_see_an_edit_after_prepare(mine: SmallCorpus) -> None:
    prepare("mine")
    assert corpus_problems(params(), deep=True, note=len) == corpus_changes(params()) == []
    card = json.loads((mine.out / "labels" / "card.json").read_text())
    assert card["tables"] == take_record(ENTRY)["tables"]
    # The stage writes what it depends on, so that DVC may be told to run it alone.
    assert json.loads(record_path("mine").read_text()) == take_record(ENTRY)
    relabel(mine)
    mine.audio("new.wav")
    *_, found = corpus_problems(params(), deep=False, note=len)
    assert "manifest.csv was edited" in found
    assert "5 audio files" in found
    assert "Run `dvc repro`" in found
    assert len(corpus_changes(params())) == 2
    # DVC has looked, but `prepare` failed: the labels are still the old ones.
    look("mine")
    assert ["manifest.csv" in line for line in corpus_changes(params())] == [True]
    prepare("mine")
    assert corpus_changes(params()) == []


@pytest.mark.parametrize("wrong", [[], {"manifest.csv": 3}, {"files": None}])
def test_a_record_that_was_edited_is_a_message(mine: SmallCorpus, wrong: Any) -> None:
    prepare("mine")
    for path, part in (
        (mine.out / "labels" / "card.json", "tables"),
        (record_path("mine"), "audio"),
    ):
        whole = path.read_text()
        path.write_text(json.dumps(json.loads(whole) | {part: wrong}))
        with pytest.raises(ManifestError, match=rf"{path.name}: {part}.*: given .*run `dvc repro`"):
            changes_since(ENTRY, mine.out / "labels")
        path.write_text(whole)


def test_a_corpus_that_an_older_release_prepared_is_not_compared(mine: SmallCorpus) -> None:
    prepare("mine")
    card = mine.out / "labels" / "card.json"
    card.write_text(
        json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "tables"})
    )
    record_path("mine").unlink()
    relabel(mine)
    assert changes_since(ENTRY, mine.out / "labels") == []


def test_an_edit_while_tables_are_read_is_refused(mine: SmallCorpus, monkeypatch: Any) -> None:
    real = take_record

    def edited(entry: Any) -> dict[str, Any]:
        record = real(entry)
        relabel(mine)
        return record

    monkeypatch.setattr("stages.prepare.__main__.take_record", edited)
    with pytest.raises(ManifestError, match=r"were edited while they were read: manifest\.csv was"):
        prepare("mine")
    assert not record_path("mine").exists()


@pytest.mark.usefixtures("mine")
def test_the_look_names_unknown_corpora() -> None:
    app = typer.Typer()
    app.command()(look)
    assert CliRunner().invoke(app, ["mine"]).exit_code == 0
    with pytest.raises(ParamsError, match=r"no entry 'other'; expected one of \['mine'\]"):
        look("other")
