"""Every recipe changes existing settings to valid ones."""

from __future__ import annotations

import pytest

from features.errors import ParamsError
from features.files.yaml_text import read_params_file
from pipeline.params.file import Params, all_problems
from pipeline.params.recipes import command_line, lacking_entries, read_recipe, settings
from tests.support.known_params import SHIPPED, known_raw
from tests.support.paths import ROOT

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_fits_the_known_entries(name: str) -> None:
    raw = known_raw()
    for path, value in settings(read_recipe(name, ROOT / "recipes")):
        *folders, last = path.split(".")
        place = raw
        for folder in folders:
            place = place[folder]
        assert last in place, f"{path} is no setting of params.yaml"
        place[last] = value
    assert all_problems(Params(**raw)) == []


def test_entries_that_params_lack_are_named() -> None:
    recipe = read_recipe("ravdess_folds", ROOT / "recipes")
    (found,) = lacking_entries(recipe, read_params_file(SHIPPED))
    assert "`heronry add corpus ravdess`" in found
    assert lacking_entries(recipe, known_raw()) == []


def test_command_line() -> None:
    overrides = {"seeds": None, "train": {"lr": 0.5}, "fusion": "heron"}
    assert command_line(overrides) == "-S seeds=null -S train.lr=0.5 -S fusion=heron"


def test_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(ParamsError, match=rf"no recipe 'x'.*{NAMES[0]}"):
        read_recipe("x", ROOT / "recipes")
