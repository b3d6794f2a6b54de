"""Entries that extraction computes in the pass of another one: which, and what is said of them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from features.corpus.manifest import Manifest
from features.errors import ParamsError
from pipeline.commands.plan import plan_steps
from pipeline.costs.cards import Speed
from pipeline.params.siblings import siblings_of
from stages._run import run
from stages.extract.__main__ import main as stage
from tests.conftest import ManifestMaker
from tests.pipeline.commands.test_check import params

BACKBONES = {
    "tone": {},
    "mean": {"kind": "tone", "pooling": "mean"},
    "exact": {"kind": "tone", "store_dtype": "float32"},
    "unused": {"kind": "tone", "pooling": "std"},
    "wide": {"kind": "tone", "dim": 9, "pooling": "mean"},
    "wrong": {"kind": "tone", "pooling": "median"},
    "none": {},
}
MODELS = {
    "a": {"kind": "concat", "speech": "tone", "nonverbal": "wide"},
    "b": {"kind": "concat", "speech": "mean", "nonverbal": "exact", "prosody": "wrong"},
}
PARAMS = params(backbones=BACKBONES, models=MODELS, fusion="a")


def names(*given: str) -> list[str]:
    return [entry.name for entry in siblings_of(PARAMS, given[0], given[1:])]


def test_those_that_some_model_uses() -> None:
    assert names("tone") == ["mean", "exact"]
    assert names("mean") == ["tone", "exact"]
    assert names("wide") == []
    assert names("tone", "unused") == ["mean", "exact", "unused"]


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        ("wide", r"dim \(9, not 8\)"),
        ("tone", "nothing else"),
        ("none", r"kind \(none, not tone\)"),
    ],
)
def test_what_is_no_sibling_is_refused(other: str, differing: str) -> None:
    with pytest.raises(ParamsError, match=f"--with '{other}': .* it differs in {differing}"):
        names("tone", other)


@pytest.fixture
def prepared(make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = make_manifest([0.5, 1.0, 0.3])
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(tmp_path / "audio"))
    rows = tuple(dataclasses.replace(u, audio=Path(u.audio or "").name) for u in manifest)
    Manifest("mine", rows).write(Path("data/mine/utterances"))
    Path("params.yaml").write_text(json.dumps(vars(PARAMS)))  # JSON is YAML


@pytest.mark.usefixtures("prepared")
def test_plan_names_them_and_counts_their_work_once(private_store: Path) -> None:
    every = plan_steps(PARAMS, private_store, ["tone", "mean", "wide"])
    tone, mean, wide = (step.line(Speed()) for step in every)
    assert "; in the same pass: mean (about 48 B), exact (about 2.9 kB); " in tone
    assert ", in the pass of tone; " in mean
    assert "pass" not in wide


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stages.extract", "mine", *words])
        with pytest.raises(SystemExit) as caught:
            run(stage)
    printed = capsys.readouterr()
    assert caught.value.code in (0, None), printed.err
    return printed.out


@pytest.mark.usefixtures("prepared")
def test_the_stage_names_them_and_theirs_only_link(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "tone", "--with", "unused")
    lines = text.splitlines()
    assert lines[0].startswith("cache/mine/tone: 3 utterances to compute")
    assert lines[1:4] == [
        "cache/mine/tone: in the same pass: mean, about 48 B",
        "cache/mine/tone: in the same pass: exact, about 2.9 kB",
        "cache/mine/tone: in the same pass: unused, about 48 B",
    ]
    for name in ("mean", "exact", "unused"):
        assert not Path("cache/mine", name).exists()
        text = said(capsys, name)
        assert f"cache/mine/{name}: 0 utterances computed, 0 copied, 1 shards reused" in text


@pytest.mark.usefixtures("prepared")
def test_only_computes_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "pass" not in said(capsys, "tone", "--only")
    assert "3 utterances computed" in said(capsys, "mean")


@pytest.mark.usefixtures("prepared")
def test_only_and_with_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stages.extract", "mine", "tone", "--only", "--with", "mean"])
    with pytest.raises(SystemExit):
        run(stage)
    assert "--only and --with mean: given both" in capsys.readouterr().err
