"""Three recipes of papers run on the demo corpus, without DVC: table, pages, and going on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from features.errors import HeronryError
from features.weights import packages
from pipeline.command_line.app import app
from pipeline.commands.run import Asked
from pipeline.params.recipes import recipe_names
from pipeline.storage.experiments import Experiment
from pipeline.storage.set_params import params_with
from stages.evaluate.__main__ import main as evaluate
from stages.extract.__main__ import main as extract
from stages.prepare.__main__ import main as prepare
from stages.train.__main__ import main as train
from tests.support.known_params import SHIPPED
from tests.support.paths import ROOT

NAMES = recipe_names(ROOT / "recipes")


class StoppedError(HeronryError):
    """Stands for an interruption."""


class Runner:
    """Runs experiments stage by stage in the current folder, and keeps what DVC would keep."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.most = 1000

    def run(self, asked: Asked, *, name: str) -> None:
        if len(self.made) == self.most:
            raise StoppedError
        before = Path("params.yaml").read_bytes()
        (params,) = params_with(asked.settings)
        Path("params.yaml").write_text(yaml.safe_dump(vars(params)))
        prepare(params.corpus)
        for backbone in {*params.model(params.fusion).slots.values()}:
            extract(params.corpus, backbone)
        train(params.corpus, params.fusion, workers=1)
        evaluate(params.regime, params.corpus, params.fusion)
        shutil.copytree("reports", Path("kept", name))
        shutil.copy(
            Path("runs", "cached", params.corpus, params.fusion, "run.json"), f"kept/{name}"
        )
        self.made[name] = vars(params)
        Path("params.yaml").write_bytes(before)

    def finished(self) -> list[Experiment]:
        return [Experiment(name, "", name) for name in self.made]

    def finished_params(self) -> Iterator[tuple[Experiment, dict[str, Any]]]:
        for each in self.finished():
            yield each, self.made[each.name]

    def numbers(self, name: str, file: str) -> dict[str, float]:
        found: dict[str, float] = json.loads(Path("kept", name, file).read_text())
        return found


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A project with the shipped recipes, in which experiments run without DVC."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", "recipes")
    shutil.copy(SHIPPED, "params.yaml")
    made = Runner()
    monkeypatch.setattr("pipeline.params.stand_ins.UTTERANCES", 48)
    monkeypatch.setattr("pipeline.commands.run.obstacles", list)
    monkeypatch.setattr("pipeline.commands.experiments.recipe.run", made.run)
    monkeypatch.setattr("pipeline.commands.experiments.recipe.finished", made.finished)
    monkeypatch.setattr("pipeline.commands.experiments.recipe._finished", made.finished_params)
    monkeypatch.setattr("pipeline.commands.experiments.recipe.read_details", made.numbers)
    return made


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["recipe", *words, "--demo"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_planned(runner: Runner, name: str) -> None:
    """On the demo corpus nothing is missing but features; nothing is written."""
    before = Path("params.yaml").read_bytes()
    planned = said(name, "--plan")
    assert re.search(rf"^{name}-demo\S*: to run$", planned, re.M)
    assert " problem" not in planned
    assert "GPU-hours" in planned
    assert Path("params.yaml").read_bytes() == before
    assert not runner.made


@pytest.mark.slow
@pytest.mark.embedded
def test_three_recipes_run_and_pages_name_stand_ins(runner: Runner) -> None:
    for package in packages.PACKAGES:
        if not packages.installed(package):
            pytest.skip(f"package {package} is not installed")
    runner.most = 1
    with pytest.raises(StoppedError):
        said("lpgnet_classes")
    runner.most = 1000
    assert re.search(r"-four: finished\n.*\n.*-six: to run", said("lpgnet_classes"))
    four, six = runner.made
    counts = [
        len(json.loads(Path("kept", x, "run.json").read_text())["classes"]) for x in (four, six)
    ]
    assert counts == [4, 6]

    table = said("mdat_encoders")
    assert table.count(": the same as mdat_encoders-demo-wav2vec2 ") == 4
    other = "published (other data and backbones)"
    header, *rows = table[table.index("\nexperiment ") :].strip().splitlines()
    assert header.split("  ").count(other) == 1
    scores = [re.split(r"\s{2,}", row) for row in rows[:5]]
    assert len({row[1] for row in scores}) == 1
    assert [row[2] for row in scores] == ["0.178", "0.274", "0.313", "0.323", "0.366"]

    said("heron_frozen")
    assert "heron_frozen-demo: finished" in said("heron_frozen", "--plan")
    page = Path("kept", "heron_frozen-demo", "index.html").read_text(encoding="utf-8")
    stand_ins = (
        "Stand-ins: minilm for roberta (text), whisper_tiny_en for hubert (speech), "
        "whisper_tiny_en_mid for voc2vec (nonverbal)."
    )
    assert stand_ins in page
    assert len(runner.made) == 4
