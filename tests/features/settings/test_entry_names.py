"""Names of entries are unique and valid for DVC, the shell and file systems."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from features.errors import ParamsError
from features.settings.entry_names import all_name_problems, name_problems
from pipeline.params.file import all_problems, read_params, read_unchecked
from tests.support.paths import ROOT

SHIPPED = ROOT / "params.yaml"
SECTIONS = ("corpora", "backbones", "models")


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.b",
            "my model",
            "-x",
            "x;y",
            "a@b",
            "..",
            ".",
            "",
            "a/b",
            "a\\b",
            "$(id)",
            "a$b",
            "a*",
        ),
        *("é", "a\n", "a\tb", "~", "a:b", "#a", "{a}", "a" * 101, "\x1b[31m", "a=b", "a,b", "[0]"),
        *("1", "010", "1_000", "0x1F", "0b1", "0o7", "1e5", "1_e-5", "2026-01-01", "-1", "_"),
        *("true", "False", "NULL", "None"),
    ],
)
def test_names_that_are_refused(section: str, name: str) -> None:
    (found,) = name_problems(section, name)
    assert "given the name" in found
    assert found.isprintable()
    assert len(found) < 300


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    "name", ["demo", "a_b", "a-b", "_a", "4way", "A", "x1", "e5", "no", "nan", "a" * 100, "a-"]
)
def test_names_that_are_taken(section: str, name: str) -> None:
    assert name_problems(section, name) == []


def test_none_is_the_empty_slots_backbone_alone() -> None:
    assert all_name_problems({"backbones": {"none": {}}}) == []
    assert all_name_problems({"backbones": {"none": {"kind": "none"}}}) == []
    wrong: list[Any] = [{"none": {"kind": "tone"}}, {"none": None}, {"None": {}}]
    for backbones in wrong:
        (found,) = all_name_problems({"backbones": backbones})
        assert "an empty slot" in found
    for section in ("corpora", "asr_backbones", "registry", "models", "ensembles", "speech_llms"):
        (found,) = all_name_problems({section: {"none": {}}})
        assert "an empty slot" in found


def test_two_pairs_of_one_stage_are_named() -> None:
    corpora = {"demo": 0, "demo-x": 0}
    (found,) = all_name_problems({"corpora": corpora, "backbones": {"tone": 0, "x-tone": 0}})
    for word in ("'demo'", "'demo-x'", "'tone'", "'x-tone'", "extract@demo-x-tone"):
        assert word in found
    assert all_name_problems({"corpora": corpora, "backbones": {"tone": 0, "y-tone": 0}}) == []


def test_names_of_one_root_variable_or_folder_are_named() -> None:
    (found,) = all_name_problems({"corpora": {"a-b": 0, "a_b": 0}})
    assert "share the variable HERONRY_A_B_ROOT" in found
    (found,) = all_name_problems({"backbones": {"tone": 0, "TONE": 0}})
    assert "differ in case alone" in found


@pytest.mark.parametrize(
    ("section", "other"),
    [
        ("asr_backbones", "backbones"),
        ("registry", "backbones"),
        ("registry", "asr_backbones"),
        ("ensembles", "models"),
        ("speech_llms", "models"),
        ("speech_llms", "ensembles"),
    ],
)
def test_a_name_of_two_sections_is_refused(section: str, other: str) -> None:
    """Both would be one folder, or `fusion` would not say which."""
    (found,) = all_name_problems({section: {"votes": {}}, other: {"Votes": {}}})
    assert found == f"{section}.votes: `{other}` has the entry 'Votes'; rename one"


def test_there_are_five_hundred_entries_at_most() -> None:
    (found,) = all_name_problems({"models": {f"m{i}": {} for i in range(501)}})
    assert found == "models: given 501 entries; expected 500 at most"


@pytest.mark.parametrize("section", SECTIONS)
def test_reading_and_checking_refuse_them(tmp_path: Path, section: str) -> None:
    path = tmp_path / "params.yaml"
    text = SHIPPED.read_text(encoding="utf-8")
    body = f"\n{section}:\n  x;y: {{}}\n  a.b: {{}}\n"
    path.write_text(re.sub(rf"\n{section}:.*\n", lambda _: body, text, count=1))
    expected = [f"{section}.{name}: given the name '{name}'" for name in ("x;y", "a.b")]
    with pytest.raises(ParamsError) as caught:
        read_params(path)
    found: Any = str(caught.value).splitlines(), all_problems(read_unchecked(path))
    for lines in found:
        assert [line.split(";  ")[0].startswith(e) for line, e in zip(lines, expected, strict=True)]
