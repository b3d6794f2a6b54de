"""`heronry corpora`: the list and the cards of corpora, prepared or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from features.errors import ParamsError
from pipeline.command_line.app import app
from pipeline.commands.corpora import describe, overview
from pipeline.params.file import Params
from tests.support.corpora.small_corpus import SmallCorpus


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCorpus:
    monkeypatch.delenv("HERONRY_RAVDESS_ROOT", raising=False)
    return SmallCorpus(tmp_path, monkeypatch)


def params(**corpora: Any) -> Params:
    given: dict[str, Any] = {"mine": {"kind": "manifest"}, "ravdess": {"protocol": "speaker_split"}}
    return Params("m", "cached", "mine", None, {}, given | corpora, {}, {})


def described(name: str, **corpora: Any) -> str:
    """What is printed, however wide its columns are."""
    return "\n".join(" ".join(line.split()) for line in describe(params(**corpora), name))


def test_a_line_for_each_corpus(mine: SmallCorpus) -> None:
    mine.four()
    mine.prepare()
    lines = overview(params(demo={"utterances": 48}, odd={"kind": "manifest", "folds": "many"}))
    cells = [[cell for cell in line.split("  ") if cell] for line in lines]
    cells = [[cell.strip() for cell in row] for row in cells]
    assert cells == [
        ["corpus", "kind", "prepared", "root", "utterances", "classes", "hours", "protocol"],
        ["mine", "manifest", "yes", "found", "4", "2", "0.00", "official"],
        ["ravdess", "ravdess", "no", "set HERONRY_RAVDESS_ROOT", "-", "-", "-", "speaker_split"],
        ["demo", "demo", "no", "generated", "-", "-", "-", "official"],
        ["odd", "manifest", "wrong entry: heronry check"],
    ]
    # Columns stand below each other.
    assert len({line.rindex(f"  {row[2]}") for line, row in zip(lines, cells, strict=True)}) == 1


def test_an_unreadable_card_leaves_the_other_lines(mine: SmallCorpus) -> None:
    mine.four()
    mine.prepare()
    (mine.out / "labels" / "card.json").write_text("{")
    assert "unreadable" in overview(params())[1]


def test_facts_known_without_the_data(mine: SmallCorpus) -> None:
    text = described("ravdess")
    assert mine.root.is_dir()
    for line in (
        "ravdess: RAVDESS (Ryerson Audio-Visual Database",
        "licence CC BY-NC-SA 4.0",
        "prepared no: dvc repro stages/prepare/dvc.yaml:prepare@ravdess",
        "root set HERONRY_RAVDESS_ROOT",
        "published 1440 utterances",
        "classes neutral, calm,",
        "https://zenodo.org/records/1188976",
        "scripted yes",
    ):
        assert line in text
    assert "Fold" not in text


def test_a_missing_table_is_no_error(mine: SmallCorpus) -> None:
    (mine.root / "manifest.csv").write_text("audio,label,speaker\n")
    text = described("mine")
    assert "root found" in text
    assert "classes" not in text


def test_the_card_of_a_prepared_corpus(mine: SmallCorpus) -> None:
    mine.four()
    rows = [row.replace("s3", "s0") for row in mine.rows()]
    mine.table(*rows, "gone.wav,,,,sad,s1,,train,")
    mine.prepare(allow_rejected=1, allow_leak=["speaker"])
    card_path = mine.out / "labels" / "card.json"
    card = json.loads(card_path.read_text()) | {
        "differences": ["label sad: 2 of 3"],
        "variant": "two_class",
        "label_map": {"hap": "happy", "xxx": None},
    }
    card_path.write_text(json.dumps(card))
    text = described("mine", mine={"kind": "manifest", "allow_leak": ["speaker"]})
    for line in (
        "Differences from the published counts\nlabel sad: 2 of 3",
        "Rejected\n1: there is no such file below the corpus root",
        "Leaks between the splits\nspeaker: 1 of 3 occur",
        "allowed leaks speaker",
        "hap -> happy, xxx -> left out",
        "variant two_class",
        "durations min 0.25 s, median 0.25 s, max 0.25 s",
        "sample rates 16000 Hz: 4 files",
        "available 4 labelled utterances, 1 rejected",
    ):
        assert line in text
    table = text.partition("Fold 0\n")[2].splitlines()
    assert [line.split() for line in table] == [
        ["train", "valid", "test"],
        ["happy", "1", "1", "0"],
        ["sad", "1", "0", "1"],
        ["all", "2", "1", "1"],
        ["speakers", "2", "1", "1"],
        ["unknown", "2", "1", "1"],
        ["hours", "0.00", "0.00", "0.00"],
    ]


def test_many_folds_are_not_all_printed(mine: SmallCorpus) -> None:
    rows = [f",hm,,,{'ab'[n % 2]},s{n},,,u{n}" for n in range(8)]
    mine.table(*rows)
    mine.prepare(protocol="leave_one_speaker_out")
    text = described("mine")
    assert text.count("Fold ") == 5
    assert text.endswith("and 3 more folds, in data/mine/labels/card.json")
    assert "leave_one_speaker_out, 8 folds" in text


def test_a_card_of_an_older_version_is_printed_without_the_rest(mine: SmallCorpus) -> None:
    (mine.out / "labels").mkdir(parents=True)
    old = {"title": "Old", "classes": ["a", "b"], "folds": 1, "counts": [{"train": {"a": 3}}]}
    (mine.out / "labels" / "card.json").write_text(json.dumps(old))
    assert "all 3" in described("mine")


def test_the_command(mine: SmallCorpus) -> None:
    fields = vars(params()) | {"fusion": "none"}
    Path("params.yaml").write_text(yaml.safe_dump(fields))
    runner = CliRunner()
    assert "ravdess" in runner.invoke(app, ["corpora"]).stdout
    assert runner.invoke(app, ["corpora", "mine"]).stdout.startswith("mine: ")
    with pytest.raises(ParamsError, match=r"no entry 'other'; expected one of \['mine', 'ravd"):
        describe(params(), "other")
    assert not list(mine.root.iterdir())
