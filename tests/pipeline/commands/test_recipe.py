"""`heronry recipe`: several experiments by DVC, of which finished ones are not run again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from features.errors import ParamsError
from pipeline.command_line.app import app
from pipeline.commands.recipe import ABOUT, Step, _table
from pipeline.params.file import Params
from pipeline.storage.experiments import Experiment
from tests.support.corpora.small_corpus import SmallCorpus
from tests.support.known_params import shipped_raw
from tests.system.test_dvc import SOURCE, Project, params, write_corpus

RECIPE = """
source: nowhere
expected: nothing
cost: seconds
overrides:
  seeds: 1
  train: {epochs: 2}
experiments:
- fusion: speech
- fusion: both
"""


def states(said: str) -> dict[str, str]:
    """What is said of each experiment, by its name."""
    return dict(re.findall(r"^(two-\w+(?:-\d)?): (.*)$", said, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.dvc
def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    tones = Project(tmp_path / "project", tmp_path / "store")
    write_corpus(tones.corpus)
    (tones.root / "params.yaml").write_text(yaml.safe_dump(params()))
    (tones.root / "recipes").mkdir()
    (tones.root / "recipes" / "two.yaml").write_text(RECIPE)
    tones.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", tones.root / ".dvc" / "config")
    tones.git("add", "-A")
    tones.git("commit", "-qm", "Start")
    before = (tones.root / "params.yaml").read_bytes()

    planned = tones.run("pipeline", "recipe", "two", "--plan")
    assert states(planned) == {"two-speech": "to run", "two-both": "to run"}
    assert "> dvc" not in planned
    said = tones.run("pipeline", "recipe", "two")
    assert said.count("> dvc exp run --name two-") == 2
    assert (tones.root / "params.yaml").read_bytes() == before
    scores = r"\d\.\d{3}( \(\d\.\d{3} - \d\.\d{3}\))?"
    row = rf"\d\.\d{{3}} +{scores}"
    rows = rf"^experiment  valid_macro_f1  macro_f1\ntwo-speech  {row}\ntwo-both    {row}\nvalid_:"
    shown = re.search(rows, said, re.MULTILINE)
    assert shown, said

    again = tones.run("pipeline", "recipe", "two")
    assert states(again) == {"two-speech": "finished", "two-both": "finished"}
    assert "> dvc" not in again
    assert shown[0] in again

    # Other settings, another code or an edited table: not the same experiment.
    tones.params(train={"epochs": None, "lr": 0.02})
    assert set(states(tones.run("pipeline", "recipe", "two", "--plan")).values()) == {"to run"}
    (tones.root / "params.yaml").write_bytes(before)
    source = tones.root / "pipeline" / "training" / "loop.py"
    content = source.read_text()
    source.write_text(content + "# edited\n")
    assert set(states(tones.run("pipeline", "recipe", "two", "--plan")).values()) == {"to run"}
    source.write_text(content)
    table = tones.corpus / "manifest.csv"
    table.write_text(table.read_text().replace("take 0", "take zero"))
    assert set(states(tones.run("pipeline", "recipe", "two", "--plan")).values()) == {"to run"}


def test_problems_of_all_experiments_are_named_before_any_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallCorpus(tmp_path, monkeypatch).four()
    raw = params()
    raw["corpus"], raw["corpora"] = "mine", {"mine": {"kind": "manifest"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "recipes").mkdir()

    def refused(content: str) -> str:
        (tmp_path / "recipes" / "r.yaml").write_text(RECIPE.split("overrides")[0] + content)
        with pytest.raises(ParamsError) as found:
            CliRunner().invoke(app, ["recipe", "r"], catch_exceptions=False)
        return str(found.value)

    lacking = refused("experiments: [{fusion: text}, {fusion: heron}]")
    assert lacking.startswith("recipe r needs what params.yaml lacks:")
    assert "`heronry add model text`" in lacking
    assert "`heronry add model heron`" in lacking
    wrong = refused("experiments: [{train: {epochs: 0}}, {train: {lr: -1}}]")
    assert "train.epochs: given 0" in wrong
    assert "train.lr: given -1" in wrong
    assert "are 2 experiments; expected one" in refused("overrides: {regime: 'cached,e2e'}")


def test_published_scores_stand_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only details.json has; a row without one, or not computed, has a dash."""
    reports = {
        ("a", "metrics.json"): {"macro_f1": 0.5, "macro_f1_low": 0.4, "macro_f1_high": 0.6},
        ("a", "details.json"): {"ovr_accuracy": 0.75},
        ("b", "metrics.json"): {"macro_f1": 0.25},
    }
    monkeypatch.setattr(
        "pipeline.commands.recipe.read_details", lambda rev, name: reports.get((rev, name), {})
    )
    monkeypatch.setattr("pipeline.commands.recipe.finished", list)
    shipped = Params(**shipped_raw())
    published = {"a": {"ovr_accuracy": 0.88}, "b": {}}
    steps = [
        Step(name, (), shipped, Experiment(name, "main", name), published[name])
        for name in ("a", "b")
    ]
    assert _table(steps).splitlines() == [
        "experiment  macro_f1               ovr_accuracy  published",
        "a           0.500 (0.400 - 0.600)  0.750         0.880",
        "b           0.250                  -             -",
        ABOUT,
    ]
