"""Unions and transfer by DVC, on two small corpora of tones: what a change runs again."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from tests.support.markdown import blocks_of
from tests.support.paths import ROOT
from tests.system.test_dvc import Project, params, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.dvc]


def settings() -> dict[str, object]:
    """Two corpora and their union; a model that is trained for a moment."""
    found = params()
    own = found["corpora"]["tones"]
    labels = {"bells": {"bass": "low", "middle": "middle", "shrill": "high"}}
    found["corpora"] |= {
        "bells": own,
        "both": {"kind": "union", "of": ["tones", "bells"], "labels": labels},
    }
    del found["models"]["both"]
    return found | {"seeds": 1, "train": {"epochs": 2, "lr": None}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which nothing was run."""
    root = tmp_path_factory.mktemp("transfer")
    made = Project(root / "project", root / "store")
    bells = root / "bells"
    made.environment["HERONRY_BELLS_ROOT"] = str(bells)
    write_corpus(made.corpus)
    write_corpus(bells, higher=1.013)  # no tone of the other corpus
    table = bells / "manifest.csv"
    text = table.read_text().replace(",low,", ",bass,").replace(",high,", ",shrill,")
    table.write_text(text)
    (made.root / "params.yaml").write_text(yaml.safe_dump(settings()))
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(ROOT / ".dvc" / "config", made.root / ".dvc" / "config")
    made.commit("Start")
    return made


def transfer(project: Project) -> str:
    """The command of docs/transfer.md."""
    (block,) = (each for each in blocks_of("docs/transfer.md") if each.language == "bash")
    program, *words = block.code.split()
    assert program == "heronry"
    return project.run("pipeline", *words)


def ran(said: str) -> list[str]:
    """Stages that DVC ran, but for those that look before anything is done."""
    found: list[str] = re.findall(
        r"^== ((?:prepare|extract|train)@\S+) \.\.\.$", said, re.MULTILINE
    )
    return found


def record(project: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (project.root / "reports/transfer/transfer.json").read_text(encoding="utf-8")
    )
    return found


def test_all_is_tested_on_all_once_and_a_member_that_changes_is_run_again(project: Project) -> None:
    before = (project.root / "params.yaml").read_bytes()
    said = transfer(project)
    assert (project.root / "params.yaml").read_bytes() == before
    # The union has the shards of its members, which were never prepared before it asked for them.
    assert len(ran(said)) == 3 * len(("prepare", "extract", "extract", "train"))
    extracted = re.findall(r"cache/(\w+)/tone: (\d+) utterances computed, (\d+) copied", said)
    assert extracted == [("tones", "54", "0"), ("bells", "54", "0"), ("both", "0", "0")]
    assert "2 pairs of corpora to predict, 0 predicted before" in said
    first = record(project)
    names = [(column["corpus"], sorted(column["cells"])) for column in first["columns"]]  # type: ignore[attr-defined]
    assert names == [(name, ["bells", "both", "tones"]) for name in ("tones", "bells")]
    assert "<html" in (project.root / "reports/transfer/index.html").read_text()

    said = transfer(project)
    assert ran(said) == []
    assert "0 pairs of corpora to predict, 2 predicted before" in said
    assert record(project) == first

    table = project.root.parent / "bells" / "manifest.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join([*rows[:-1], rows[-1].replace("shrill", "bass")]) + "\n")
    said = transfer(project)
    # No extraction: the words and sounds are as they were.
    assert ran(said) == ["prepare@bells", "train@speech", "prepare@both", "train@speech"]
    assert "1 pairs of corpora to predict, 1 predicted before" in said
