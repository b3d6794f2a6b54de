"""What `heronry recipe NAME --plan` says of the papers' recipes, as docs/reproducing.md has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from features.files.yaml_text import read_params_file
from pipeline.costs.experiments import cost_lines
from pipeline.params.catalogue.entries import with_catalogue
from pipeline.params.file import Params
from pipeline.params.recipes import read_recipe, recipe_names
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "reproducing.md"
PAPERS = ("heron", "mdat", "lpgnet")


def changed(before: Any, now: Any) -> Any:
    """Settings under those of an experiment."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return now
    return {**before, **{key: changed(before.get(key), value) for key, value in now.items()}}


def rows_of_the_page() -> dict[str, str]:
    """Rows of the table by recipe."""
    text = PAGE.read_text(encoding="utf-8")
    rows: list[str] = re.findall(r"^\| `\w+` \| \d+ \|.*$", text, re.MULTILINE)
    return {row.split("`")[1]: row for row in rows}


def row_of(name: str, settings: Mapping[str, Any]) -> str:
    recipe = read_recipe(name, ROOT / "recipes")
    variants = [Params(**changed(settings, each)) for each in recipe.experiments]
    lines = "\n".join(cost_lines(variants)).replace(" GPU-hours", "")
    missing = re.search(r"^missing features: (.+); (.+), (.+)$", lines, re.MULTILINE)
    training = re.search(r"^training.*: (.+)$", lines, re.MULTILINE)
    cells = (
        *((missing[1], missing[2], missing[3]) if missing else ("none", "", "")),
        training[1] if training else "",
    )
    return " | ".join([f"| `{name}`", str(len(variants)), *cells]) + " |"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of the shipped params.yaml and the catalogue, where nothing is prepared or extracted."""
    monkeypatch.chdir(tmp_path)
    for name in ("HERONRY_CARD", "HERONRY_UTILISATION"):
        monkeypatch.delenv(name, raising=False)
    return with_catalogue(read_params_file(ROOT / "params.yaml"))


def test_every_recipe_of_the_papers_has_the_cost_that_plan_prints(settings: dict[str, Any]) -> None:
    """To mend a row, take the one on the right of the message."""
    names = [n for n in recipe_names(ROOT / "recipes") if any(paper in n for paper in PAPERS)]
    assert rows_of_the_page() == {name: row_of(name, settings) for name in names}
