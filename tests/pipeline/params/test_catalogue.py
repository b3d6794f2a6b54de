"""The catalogue of entries, and that params.yaml ships some of them as they are there."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]

from features.files.yaml_text import read_yaml
from pipeline.params.catalogue.entries import (
    FOLDER,
    SECTIONS,
    catalogue_entry,
    catalogued,
    entry_text,
    expected_entry,
)
from pipeline.params.selection import SLOTS, selection_problems, unwritten_slots
from tests.support.known_params import SHIPPED, known_raw, shipped_raw

MISSION = {"heron", "gat", "lpgnet", "hcam", "transformer", "bigru_cross", "concat", "spectral"}
WITHOUT_WEIGHTS = {"logmel", "tone"}  # with the model `spectral`: what runs on any machine at once
FILES = sorted(FOLDER.glob("*/*.yaml"))


def test_params_ship_the_demo_and_what_the_missions_models_need() -> None:
    raw = shipped_raw()
    slots = {model[slot] for model in raw["models"].values() for slot in (*SLOTS, "asr")}
    assert raw["models"].keys() == MISSION
    assert raw["corpora"].keys() == {"demo", "mine"}
    assert raw["backbones"].keys() == slots | WITHOUT_WEIGHTS
    assert len(SHIPPED.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}-{p.stem}" for p in FILES])
def test_a_file_is_one_entry_with_all_that_dvc_reads(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(read_yaml(text)) == [path.stem]
    assert path.parent.name in SECTIONS.values()
    if path.parent.name == "models":
        assert unwritten_slots(read_yaml(text)) == []
        assert "kind" in catalogue_entry("models", path.stem)


@pytest.mark.parametrize("section", SECTIONS.values())
def test_shipped_entries_are_those_of_the_catalogue(section: str) -> None:
    """Line by line, comments included: a change of one is a change of the other."""
    text = SHIPPED.read_text(encoding="utf-8")
    for name in shipped_raw()[section]:
        block = "".join(f"  {line}\n" for line in entry_text(section, name).splitlines())
        assert f"\n{block}" in text, name


def test_backbones_of_models_are_in_the_catalogue() -> None:
    for name in catalogued("models"):
        entry = catalogue_entry("models", name)
        assert {entry[slot] for slot in (*SLOTS, "asr")} <= set(catalogued("backbones"))


@pytest.mark.parametrize(
    ("section", "given", "told"),
    [
        ("models", "text", "['heron'], or `heronry add model text`, which"),
        ("corpora", "ravdes", "or `heronry add corpus ravdess`, which the"),
        ("backbones", "hubert", "or `heronry add backbone hubert`, which"),
        ("models", "heroin", "['heron'] (did you mean 'heron'?)"),
        ("models", "nothing alike", "one of ['heron']"),
        ("models", None, "one of ['heron']"),
        ("models", ["text"], "one of ['heron']"),
        ("models", "x" * 5000, "one of ['heron']"),
    ],
)
def test_what_is_expected_names_the_command(section: str, given: object, told: str) -> None:
    found = expected_entry(section, given, ["heron"])
    assert told in found
    assert ("heronry add" in found) == ("heronry add" in told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fusion": "prosody"}, "`heronry add model prosody`"),
        ({"corpus": "meld"}, "`heronry add corpus meld`"),
        ({"models": {"heron": {"speech": "hubert"}}}, "`heronry add backbone hubert`"),
        ({"models": {"heron": {"asr": "minilm_asr"}}}, "`heronry add asr_backbone mini"),
    ],
)
def test_a_selection_from_the_catalogue_names_the_command(
    changes: dict[str, object], told: str
) -> None:
    (found,) = selection_problems(shipped_raw() | changes)
    assert told in found
    assert selection_problems(known_raw() | changes) == []


def test_a_slot_that_is_not_written_is_named() -> None:
    models = {"m": {"kind": "concat", **dict.fromkeys(SLOTS, "none")}, "odd": None}
    (found,) = unwritten_slots(models)
    assert found.startswith("models.m: given no asr; expected all six slots")


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("fusion=lpgnet", "fusion: lpgnet  # an entry of models"),
        ("seeds=3", "seeds: 3        # n: seeds 0..n-1"),
        ("train.lr=5e-5", "  lr: 5e-05"),
        ("models.heron.args.d_model=256", "      d_model: 256"),
        ("models.concat.args.hidden=64", "      hidden: 64"),
        ("models.heron.speech=none", "    speech: none"),
        ("models.heron.inputs.layer_norm=[text]", "    inputs: {mix_layers: false, layer_norm: [t"),
        ("corpora.mine.allow_leak=[speaker]", "    allow_leak:\n    - speaker"),
        ("corpora.mine.fold=1", "    fold: 1"),
        ("backbones.minilm.layer=3", "    layer: 3"),
        ("e2e.slots.text.tune=lora", "    text: {tune: lora, freeze_front_end: null"),
    ],
)
def test_dvc_changes_the_line_of_a_setting_alone(
    tmp_path: Path, setting: str, line: str, *, known: bool
) -> None:
    """DVC writes the whole file: nulls, flow mappings and comments must come back as they were.

    A value may move the comment of its line, and no other line may change.
    """
    path = tmp_path / "params.yaml"
    shutil.copy(SHIPPED, path)
    if known:
        blocks = (entry_text("models", name) for name in ("text", "prosody"))
        text = "".join(f"  {line}\n" for block in blocks for line in block.splitlines())
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    before = path.read_text(encoding="utf-8").splitlines()
    apply_overrides(path, [setting])
    after = path.read_text(encoding="utf-8").splitlines()
    changed = [each for each in difflib.ndiff(before, after) if each[:2] in ("- ", "+ ")]
    values = line.splitlines()
    assert len(changed) == 1 + len(values), changed
    assert changed[0][0] == "-"
    for found, expected in zip(changed[1:], values, strict=True):
        assert found[2:].startswith(expected)


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}-{p.stem}" for p in FILES])
def test_dvc_writes_entries_of_the_catalogue_as_they_are(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / "params.yaml"
    text = path.read_text(encoding="utf-8")
    copy.write_text(f"changed: 1\n{text}", encoding="utf-8")
    apply_overrides(copy, ["changed=2"])
    assert copy.read_text(encoding="utf-8") == f"changed: 2\n{text}"
