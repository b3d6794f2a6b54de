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
from pipeline.commands.add import add
from pipeline.commands.experiments.recipe import ABOUT, Step, _table
from pipeline.params.file import Params, all_problems, read_params
from pipeline.params.recipes import read_recipe
from pipeline.storage.experiments import Experiment
from tests.support.corpora.small_corpus import SmallCorpus
from tests.support.known_params import SHIPPED, shipped_raw
from tests.support.paths import ROOT
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

    # What it does not use may change.
    tones.params(trackers=["tensorboard"], backbones=params()["backbones"] | {"f0": {"version": 1}})
    assert set(states(tones.run("pipeline", "recipe", "two", "--plan")).values()) == {"finished"}
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

    before = (tmp_path / "params.yaml").read_bytes()
    lacking = refused("experiments: [{fusion: both}, {fusion: mine}, {corpus: ours}]")
    assert lacking.startswith("models: no entry 'mine'; expected one of ['both', 'speech'], or")
    assert "corpora: no entry 'ours'; expected one of ['mine']" in lacking
    wrong = refused("experiments: [{train: {epochs: 0}}, {train: {lr: -1}}]")
    assert "train.epochs: given 0" in wrong
    assert "train.lr: given -1" in wrong
    assert "are 2 experiments; expected one" in refused("overrides: {regime: 'cached,e2e'}")
    assert (tmp_path / "params.yaml").read_bytes() == before


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params.yaml as shipped, beside the recipes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", "recipes")
    return Path(shutil.copy(SHIPPED, "params.yaml"))


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["recipe", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_a_recipe_adds_what_it_needs_and_overwrites_nothing(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("backbone", "hubert")
    edited = shipped.read_text().replace(
        "checkpoint: facebook/hubert-base", "checkpoint: my/hubert-base"
    )
    shipped.write_text(edited)
    planned = said("heron_ablations", "--plan")
    names = "corpus nonverbal_tts, backbones roberta, voc2vec, model heron_paper"
    assert f"would add {names} to params.yaml" in planned
    assert "kept backbones.hubert of params.yaml, unlike the catalogue's in checkpoint (" in planned
    assert "HERONRY_NONVERBAL_TTS_ROOT is not set" in planned
    assert "backbones.roberta: cannot load checkpoint" in planned
    assert shipped.read_text() == edited

    ran: list[str] = []
    monkeypatch.setattr("pipeline.commands.experiments.recipe.check_all", lambda _: [])
    monkeypatch.setattr(
        "pipeline.commands.experiments.recipe.run", lambda _, name: ran.append(name)
    )
    monkeypatch.setattr("pipeline.commands.experiments.recipe._table", lambda *_: "")
    assert f"added {names} to params.yaml" in said("heron_ablations")
    assert ran == [f"heron_ablations-{row.label}" for row in read_recipe("heron_ablations").rows]
    assert all_problems(read_params(shipped)) == []
    assert shipped.read_text().replace("\n", "").startswith(edited[:2000].replace("\n", ""))
    whole = shipped.read_bytes()
    assert "added" not in said("heron_ablations")
    assert shipped.read_bytes() == whole


def test_the_list_says_which_recipes_can_run_here(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = said("--list", "n")
    assert re.search(
        r"^heron_frozen +1 +5 entries +no: set HERONRY_NONVERBAL_TTS_ROOT +HERON with", listed, re.M
    )
    assert re.search(r"^heron_mdat_lpgnet +3 +- +yes +The three systems", listed, re.M)
    assert "demo_votes" not in listed
    (shipped.parent / "corpus" / "x").mkdir(parents=True)
    monkeypatch.setenv("HERONRY_NONVERBAL_TTS_ROOT", str(shipped.parent / "corpus"))
    assert re.search(r"^heron_frozen +1 +5 entries +yes ", said("--list"), re.M)
    # Without a selected corpus the others can still be listed.
    shipped.write_text(yaml.safe_dump({k: v for k, v in shipped_raw().items() if k != "corpus"}))
    assert re.search(r"^heron_frozen +1 +5 entries +yes ", said("--list"), re.M)
    for words, message in ((["--list", "x_"], "a part of .*demo_votes"), ([], "or --list")):
        with pytest.raises(ParamsError, match=message):
            said(*words)


def test_published_scores_stand_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only details.json has; a row without one, or not computed, has a dash."""
    reports = {
        ("a", "metrics.json"): {"macro_f1": 0.5, "macro_f1_low": 0.4, "macro_f1_high": 0.6},
        ("a", "details.json"): {"ovr_accuracy": 0.75},
        ("b", "metrics.json"): {"macro_f1": 0.25},
    }
    monkeypatch.setattr(
        "pipeline.commands.experiments.recipe.read_details",
        lambda rev, name: reports.get((rev, name), {}),
    )
    monkeypatch.setattr("pipeline.commands.experiments.recipe.finished", list)
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
