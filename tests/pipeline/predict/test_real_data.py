"""`heronry predict` on RAVDESS with a pretrained backbone of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.backbone.entry import backbone_entry
from pipeline.command_line.app import app
from pipeline.params.catalogue.entries import catalogue_entry
from tests.conftest import ManifestMaker
from tests.support.paths import ROOT
from tests.support.runs.random_run import CLASSES, RandomRun

RAVDESS = ROOT.parent / "shared/data/ravdess"


@pytest.mark.real_data
@pytest.mark.slow
def test_a_real_clip(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_manifest: ManifestMaker,
    private_store: Path,
) -> None:
    clips = sorted(RAVDESS.glob("Actor_01/*.flac"))[:2]
    if not clips:
        pytest.skip(f"no RAVDESS in {RAVDESS}")
    monkeypatch.chdir(tmp_path)
    entries = {
        slot: backbone_entry(name, catalogue_entry("backbones", name))
        for slot, name in (("text", "minilm"), ("speech", "whisper_tiny_en"))
    }
    run = RandomRun(tmp_path, make_manifest([0.9, 0.5]), entries, "heron").write(private_store)
    words = ["predict", str(run.path), *map(str, clips), "--transcribe", "--jsonl", "out.jsonl"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    rows = map(json.loads, Path("out.jsonl").read_text().splitlines())
    for row, clip in zip(rows, clips, strict=True):
        assert (row["id"], row["missing"]) == (str(clip), [])
        assert 3 < row["stop"] < 5
        assert sum(row[f"p_{name}"] for name in CLASSES) == pytest.approx(1)
        assert "door" in row["asr"].lower()  # "Kids are talking by the door"
