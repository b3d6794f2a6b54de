"""docs/segments.md: from an RTTM file to predictions by speaker, in the commands of the page."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from features.backbone.entry import backbone_entry
from tests.conftest import RATE, ManifestMaker, tone
from tests.support.markdown import blocks_of
from tests.support.paths import ROOT
from tests.support.runs.random_run import CLASSES, RandomRun

pytestmark = pytest.mark.slow
PAGE = "docs/segments.md"


def test_two_commands_lead_from_a_diarisation_to_predictions_by_speaker(
    tmp_path: Path,
    make_manifest: ManifestMaker,
    private_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rttm, shown = (block.code for block in blocks_of(PAGE) if block.language == "text")
    (commands,) = (block.code for block in blocks_of(PAGE) if block.mark == "run by")
    entry = backbone_entry("b_speech", {"kind": "tone", "version": 2})
    run = RandomRun(tmp_path, make_manifest([0.9, 0.5, 1.3, 0.7]), {"speech": entry})
    run.write(private_store).path.rename(_parents(tmp_path / "runs/cached/demo/speech"))
    Path("talks.rttm").write_text(rttm)
    for name in ("monday", "tuesday"):
        soundfile.write(_parents(Path(f"talks/{name}.wav")), tone(200.0, 5.0), RATE)
    done = subprocess.run(
        ["bash", "-euc", f'heronry() {{ "{sys.executable}" -m pipeline "$@"; }}\n{commands}'],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = read("talks/predicted.csv")
    assert [(Path(row["audio"]).name, row["start"], row["speaker"]) for row in rows] == [
        ("monday.wav", "0.5", "anna"),
        ("monday.wav", "2.8", "bo"),
        ("tuesday.wav", "0.2", "anna"),
    ]
    names = [f"p_{name}" for name in CLASSES]
    head, anna, bo = (line.split() for line in done.stdout.splitlines()[-3:])
    assert head == shown.splitlines()[0].split()
    assert anna[:3] == shown.splitlines()[1].split()[:3]
    assert bo[0] == "bo"
    for line, own in ((anna, rows[::2]), (bo, rows[1:2])):
        means = np.mean([[float(row[name]) for name in names] for row in own], axis=0)
        assert line[3:] == [CLASSES[int(np.argmax(means))], *(f"{mean:.2f}" for mean in means)]


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _parents(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
