"""The JSON schema of params.yaml says what the checks say, as far as a schema can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from pipeline.commands.schema import SCHEMA, schema
from pipeline.params.file import all_problems
from pipeline.params.schema import params_schema
from tests.pipeline.params.test_file import change
from tests.support.known_params import SHIPPED, known_raw, shipped_raw
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def validator() -> Any:
    content = params_schema()
    jsonschema.Draft7Validator.check_schema(content)
    return jsonschema.Draft7Validator(content)


def refused(validator: Any, raw: dict[str, Any]) -> set[str]:
    """Dotted places of what the schema refuses."""
    return {".".join(map(str, error.absolute_path)) for error in validator.iter_errors(raw)}


def test_all_known_entries_are_right(validator: Any) -> None:
    assert refused(validator, shipped_raw()) == set()
    assert refused(validator, known_raw()) == set()


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("regime", "online", "regime"),
        ("seeds", 0, "seeds"),
        ("train.lr", -1.0, "train.lr"),
        ("train.betas", [0.9], "train.betas"),
        ("train.momentum", 0.9, "train"),
        ("train.loss", "hinge", "train.loss"),
        ("e2e.lora.rank", 0, "e2e.lora.rank"),
        ("e2e.lora.targets", [], "e2e.lora.targets"),
        ("e2e.init", {"run": ""}, "e2e.init"),
        ("e2e.slots.text.tune", "all", "e2e.slots.text.tune"),
        ("e2e.slots.prosody", {}, "e2e.slots"),
        ("models.heron.kind", "heroin", "models.heron.kind"),
        ("models.heron.args.width", 3, "models.heron.args"),
        ("models.heron.args.heads", True, "models.heron.args.heads"),
        ("models.heron.args.dropout", 1.0, "models.heron.args.dropout"),
        ("models.heron.train.lr_end", -1, "models.heron.train.lr_end"),
        ("models.heron.inputs.mix_layers", 1, "models.heron.inputs"),
        ("models.heron.video", "none", "models.heron"),
        ("registry", {"theirs": {"checkpoint": "x"}}, "registry.theirs"),
        ("backbones.tone.kind", "ton", "backbones.tone.kind"),
        ("backbones.minilm.layer", [10**9], "backbones.minilm.layer"),
        ("backbones.minilm.layers", [1, 2], "backbones.minilm"),
        ("backbones.logmel.hop", 0, "backbones.logmel.hop"),
        ("backbones.f0", {"bins": 1}, "backbones.f0.bins"),
        ("corpora.demo.utterances", 8, "corpora.demo.utterances"),
        ("corpora.mine.protocol", "random", "corpora.mine.protocol"),
        ("corpora.mine", None, "corpora.mine"),
        ("ensembles.votes", {"members": []}, "ensembles.votes.members"),
        ("ensembles.votes", {"members": ["a"], "method": "sum"}, "ensembles.votes.method"),
        ("ensembles.votes", {"method": "mean"}, "ensembles.votes"),
    ],
)
def test_mistakes_that_the_checks_name_are_refused(
    validator: Any, path: str, value: Any, place: str
) -> None:
    params = change(known_raw(), path, value)
    assert all_problems(params)
    assert refused(validator, vars(params)) == {place}


def test_a_model_without_a_slot_is_refused(validator: Any) -> None:
    raw = shipped_raw()
    del raw["models"]["heron"]["asr"]
    assert refused(validator, raw) == {"models.heron"}


def test_the_command_writes_what_the_first_line_of_params_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schema()
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == params_schema()
    first = SHIPPED.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA}"


CODE = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(["dvc", "pydantic", "ruamel", "ruamel.yaml"]))
import features
for found in pkgutil.walk_packages(features.__path__, "features."):
    importlib.import_module(found.name)
import pipeline.cached.run, pipeline.e2e.run, pipeline.params.file
"""


def test_hosts_that_extract_and_train_need_neither_pydantic_nor_dvc_nor_ruamel() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
