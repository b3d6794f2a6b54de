"""What surrounds the code: citation, workflows, issue templates and supported Pythons agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.process.interrupts import PYTHONS
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# Of the Citation File Format 1.2.0: required keys, and the type of those that are used.
CITATION = {
    "cff-version": str,
    "message": str,
    "title": str,
    "authors": list,
    "type": str,
    "abstract": str,
    "version": str,
    "license": str,
    "keywords": list,
}


def content(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_citation_says_what_the_package_says() -> None:
    found = content(ROOT / "CITATION.cff")
    assert {key: type(value) for key, value in found.items()} == CITATION
    assert found["cff-version"] == "1.2.0"
    assert found["title"] == PROJECT["name"]
    assert found["version"] == PROJECT["version"]
    assert found["license"] == PROJECT["license"]
    assert found["abstract"] == PROJECT["description"]
    assert [each["name"] for each in found["authors"]] == [a["name"] for a in PROJECT["authors"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_version_and_rights_are_few(path: Path) -> None:
    workflow = content(path)
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps(workflow):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0"))
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_ci_runs_the_one_script_and_every_python() -> None:
    workflow = content(ROOT / ".github/workflows/ci.yml")
    first, others = workflow["jobs"]["all"], workflow["jobs"]["other-pythons"]
    assert first["steps"][-1] == {"run": ".ci/run"}
    pythons = [first["container"].removeprefix("python:").removesuffix("-bookworm")]
    pythons += others["strategy"]["matrix"]["python"]
    assert pythons == [f"{major}.{minor}" for major, minor in PYTHONS]
    listed = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if ":: 3." in text]
    assert listed == pythons
    assert f"(3, {PYTHONS[-1][1]}) or sys.exit" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_templates_are_forms(path: Path) -> None:
    form = content(path)
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= form.keys()
    asked = [each for each in form["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in asked}) == len(asked)
    assert all(each["attributes"]["label"] for each in asked)
