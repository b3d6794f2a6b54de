"""docs/use.md: a run is exported in a small project, and predicts in another folder."""

from __future__ import annotations

import os
import shutil
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
from tests.support.runs.random_run import CLASSES, RandomRun

PAGE = "docs/use.md"


@pytest.mark.slow
def test_the_page(
    tmp_path: Path,
    make_manifest: ManifestMaker,
    private_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In processes of their own, as its reader has them."""
    (command,) = (b.code for b in blocks_of(PAGE) if b.mark == "run by" and b.language == "bash")
    scripts = [b.code for b in blocks_of(PAGE) if b.language == "python"]
    project, away = tmp_path / "project", tmp_path / "away"
    for folder in (project, away):
        folder.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path / "checkpoints"))
    words = {"kind": "text_encoder", "version": 2, "checkpoint": "some/bert"}
    text_encoder.VARIANTS["bert"](tmp_path / "checkpoints/bert")
    entries = {
        "text": backbone_entry("words", words),
        "speech": backbone_entry("voice", {"kind": "tone", "version": 3}),
    }
    run = RandomRun(project, make_manifest([0.9, 0.5, 1.3, 0.7]), entries, "heron")
    run.write(private_store).prepare()
    (project / "runs/cached/demo").mkdir()
    run.path.rename(project / "runs/cached/demo/heron")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def said(folder: Path, *words: str) -> str:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said(
        project, "bash", "-euc", f'heronry() {{ "{sys.executable}" -m pipeline "$@"; }}\n{command}'
    )
    shutil.move(project / "exported", away)
    shutil.rmtree(project)
    for number, name in enumerate("ab"):
        soundfile.write(away / f"{name}.wav", tone(150.0 + 50 * number, 1.0), RATE)
    lines = said(away, sys.executable, "-c", scripts[0]).splitlines()
    assert [line.split()[0] for line in lines[::2]] == ["a.wav", "b.wav", "text"]
    assert [line.endswith("[] None") for line in lines[::2]] == [True, False, False]
    assert all(line.startswith(f"{{'p_{CLASSES[0]}': 0.") for line in lines[1::2])
    assert said(away, sys.executable, "-c", f"{scripts[1]}\nprint(logits.shape)") == (
        f"torch.Size([2, {len(CLASSES)}])\n"
    )
