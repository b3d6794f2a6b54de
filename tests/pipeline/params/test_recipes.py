"""Every recipe changes existing settings to valid ones."""

from __future__ import annotations

from typing import Any

import pytest

from features.errors import ParamsError
from features.files.yaml_text import read_yaml
from pipeline.params.file import Params, all_problems
from pipeline.params.recipes import command_line, read_recipe, settings
from tests.support.paths import ROOT

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_fits_the_shipped_params(name: str) -> None:
    raw: dict[str, Any] = read_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for path, value in settings(read_recipe(name, ROOT / "recipes")):
        *folders, last = path.split(".")
        place = raw
        for folder in folders:
            place = place[folder]
        assert last in place, f"{path} is no setting of params.yaml"
        place[last] = value
    assert all_problems(Params(**raw)) == []


def test_command_line() -> None:
    overrides = {"seeds": None, "train": {"lr": 0.5}, "fusion": "heron"}
    assert command_line(overrides) == "-S seeds=null -S train.lr=0.5 -S fusion=heron"


def test_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(ParamsError, match=rf"no recipe 'x'.*{NAMES[0]}"):
        read_recipe("x", ROOT / "recipes")
