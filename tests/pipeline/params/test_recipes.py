"""Every recipe changes existing settings to valid ones; what a recipe file may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.errors import ParamsError
from pipeline.metrics.classes import MONITORS, scores
from pipeline.params.file import Params, all_problems
from pipeline.params.recipes import (
    OPEN,
    arguments,
    command_line,
    lacking_entries,
    read_recipe,
    recipe_names,
    settings,
    with_added,
)
from tests.support.known_params import known_raw, shipped_raw
from tests.support.paths import ROOT

NAMES = recipe_names(ROOT / "recipes")
ABOUT = "source: a paper\nexpected: not published\ncost: a minute\n"


@pytest.mark.parametrize("name", NAMES)
def test_recipe_fits_the_known_entries(name: str) -> None:
    for overrides in read_recipe(name, ROOT / "recipes").experiments:
        raw = known_raw()
        for path, value in settings(overrides):
            *folders, last = path.split(".")
            place = raw
            for folder in folders:
                place = place.setdefault(folder, {}) if folders[0] in OPEN else place[folder]
            # An entry need not name every setting; those that there are not are problems.
            assert last in place or folders[0] in OPEN, path
            place[last] = value
        assert all_problems(Params(**raw)) == []


def test_published_scores_are_of_metrics_that_a_report_has() -> None:
    known = {*scores(np.eye(2)), *(f"valid_{name}" for name in MONITORS)}
    recipes = [read_recipe(name, ROOT / "recipes") for name in NAMES]
    published = [row.published for recipe in recipes for row in recipe.rows]
    assert {score for each in published for score in each} <= known
    assert sum(map(bool, published)) > 30


def test_entries_that_params_lack_come_from_the_catalogue() -> None:
    raw = shipped_raw()
    experiments = read_recipe("ravdess_folds", ROOT / "recipes").experiments
    assert lacking_entries(experiments, raw) == [("corpora", "ravdess")]
    assert lacking_entries(experiments, known_raw()) == []
    with_model = with_added(raw, [("models", "heron_paper")])
    assert with_model["models"]["heron_paper"]["speech"] == "hubert"
    assert raw == shipped_raw()
    # A model that only needs its own backbones under other settings must be right without them.
    slots = {"fusion": "heron_paper", "models": {"heron_paper": {"speech": "wavlm"}}}
    lacking = [name for _, name in lacking_entries([slots], raw)]
    assert sorted(lacking) == ["heron_paper", "hubert", "roberta", "voc2vec", "wavlm"]
    heard = {"models": {"heron": {"asr": "minilm_asr"}}}
    assert lacking_entries([heard], raw) == [("asr_backbones", "minilm_asr")]
    with pytest.raises(ParamsError, match=r"models: no entry 'heronn'; expected .*mean 'heron'"):
        lacking_entries([{"fusion": "heronn"}], raw)


def test_settings_are_words_of_one_shell_line() -> None:
    overrides = {
        "seeds": None,
        "train": {"lr": 0.5, "targets": ["classes", "votes"]},
        "fusion": "heron",
        "corpora": {"demo": {"targets": ["votes"], "folds": 3}},
    }
    words = arguments(overrides, {"train": {}, "corpora": {"demo": {"folds": None}}})
    assert command_line(words) == (
        '-S seeds=null -S train.lr=0.5 -S train.targets=["classes","votes"] -S fusion=heron '
        '-S +corpora.demo.targets=["votes"] -S corpora.demo.folds=3'
    )


def written(folder: Path, content: str) -> Path:
    (folder / "r.yaml").write_text(ABOUT + content)
    return folder


def test_what_several_experiments_share_is_written_once(tmp_path: Path) -> None:
    shared = "overrides: {seeds: 1, train: {epochs: 2}}\n"
    found = read_recipe("r", written(tmp_path, shared))
    assert found.experiments == ({"seeds": 1, "train": {"epochs": 2}},)
    assert found.experiment_name(found.rows[0], "heron") == "r"
    several = "experiments:\n- fusion: gat\n  train: {lr: 0.1}\n- fusion: heron\n"
    found = read_recipe("r", written(tmp_path, shared + several))
    assert found.experiments == (
        {"seeds": 1, "train": {"epochs": 2, "lr": 0.1}, "fusion": "gat"},
        {"seeds": 1, "train": {"epochs": 2}, "fusion": "heron"},
    )
    assert found.experiment_name(found.rows[1], "heron") == "r-heron"
    assert read_recipe("r", written(tmp_path, several)).experiments[1] == {"fusion": "heron"}


def test_a_row_of_a_table_has_a_name_and_what_its_paper_reports(tmp_path: Path) -> None:
    named = "experiments:\n- {name: no_ffn, published: {macro_f1: 0.5}, seeds: 1}\n- fusion: gat\n"
    found = read_recipe("r", written(tmp_path, named))
    assert found.experiments == ({"seeds": 1}, {"fusion": "gat"})
    assert [found.experiment_name(row, "gat") for row in found.rows] == ["r-no_ffn", "r-gat"]
    assert [row.published for row in found.rows] == [{"macro_f1": 0.5}, {}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("experiments: [{name: a b}]", r"\[0\].name: given 'a b'; expected lower-case letters"),
        ("experiments: [{name: a}, {name: a}]", "name: given 'a' twice"),
        ("experiments: [{published: 3}]", r"\[0\].published: given 3; expected a mapping"),
        ("experiments: [{published: {uar: 67}}]", r"published.uar: given 67; .* from 0 to 1"),
        ("", r"holds \['source', 'expected', 'cost'\]; expected the keys .* and overrides, exper"),
        ("overrides: {}\nnotes: x\n", r"holds .*'notes'\]; expected the keys"),
        ("overrides: 3\n", r"overrides: given 3; expected a mapping"),
        ("experiments: {a: 1}\n", r"experiments: given {'a': 1}; expected a list"),
        ("experiments: []\n", r"experiments: given \[\]; expected a list"),
        ("experiments: [heron]\n", r"experiments\[0\]: given 'heron'; expected a mapping"),
        ("overrides: {models: [heron]}", r"\[0\].models: given \['heron'\]; expected a mapping"),
        ("overrides: {models: {heron: 5}}", r"models.heron: given 5; expected a mapping"),
        ("overrides: {train:}", r"\[0\].train: given None; expected a mapping"),
        ("overrides: {}\ndemo: {e2e: 3}", r"\[0\].demo.e2e: given 3; expected a mapping"),
    ],
)
def test_other_recipes_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        read_recipe("r", written(tmp_path, content))


def test_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(ParamsError, match=rf"no recipe 'x'.*{NAMES[0]}"):
        read_recipe("x", ROOT / "recipes")
