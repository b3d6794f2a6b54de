"""docs/predict.md: its commands, in a small project."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from features.backbone.entry import backbone_entry
from tests.conftest import RATE, ManifestMaker, tone
from tests.contracts.checkpoints import text_encoder
from tests.support.markdown import blocks_of
from tests.support.paths import ROOT
from tests.support.runs.random_run import RandomRun

PAGE = "docs/predict.md"


@pytest.mark.slow
def test_the_commands_of_the_page(
    tmp_path: Path,
    make_manifest: ManifestMaker,
    private_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (commands,) = (block.code for block in blocks_of(PAGE) if block.mark == "run by")
    words = {"kind": "text_encoder", "version": 2, **text_encoder.VARIANTS["bert"](Path("bert"))}
    words["checkpoint"] = str(Path("bert").absolute())
    entries = {
        "text": backbone_entry("words", words),
        "speech": backbone_entry("voice", {"kind": "tone", "version": 3}),
    }
    run = RandomRun(tmp_path, make_manifest([0.9, 0.5, 1.3, 0.7]), entries, "heron")
    (tmp_path / "runs/cached/demo").mkdir(parents=True)
    run.write(private_store).path.rename(tmp_path / "runs/cached/demo/heron")
    Path("calls").mkdir()
    for number, name in enumerate("ab"):
        soundfile.write(f"calls/{name}.wav", tone(150.0 + 50 * number, 1.0), RATE)
    Path("words.csv").write_text("audio,text\ncalls/b.wav,this is an utterance\n")
    Path("calls.csv").write_text("audio,start,stop,speaker\ncalls/a.wav,0,0.5,anna\n")
    done = subprocess.run(
        ["bash", "-euc", f'heronry() {{ "{sys.executable}" -m pipeline "$@"; }}\n{commands}'],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "without text" in done.stdout
    assert "anna" in done.stdout
    for name, missing in (("a", ["text", "text"]), ("b", ["text", ""])):
        with Path(f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == ["calls/a.wav", "calls/b.wav"]
        assert [row["missing"] for row in rows] == missing
