"""docs/segments.md: from an RTTM file to predictions by speaker, as the page says."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.conftest import RATE, tone
from tests.support.markdown import blocks_of
from tests.support.paths import ROOT

PAGE = "docs/segments.md"

pytestmark = pytest.mark.slow


def test_a_diarisation_becomes_a_table(tmp_path: Path) -> None:
    (rttm,) = (block for block in blocks_of(PAGE) if block.language == "text")
    (command,) = (block for block in blocks_of(PAGE) if block.mark == "run by")
    (tmp_path / "talks.rttm").write_text(rttm.code)
    (tmp_path / "talks").mkdir()
    for name in ("monday", "tuesday"):
        soundfile.write(tmp_path / "talks" / f"{name}.wav", tone(200.0, 5.0), RATE)
    script = f'heronry() {{ "{sys.executable}" -m pipeline "$@"; }}\n{command.code}'
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "talks" / "manifest.csv").open(newline="") as file:
        found = [(row["audio"], row["start"], row["speaker"]) for row in csv.DictReader(file)]
    assert found == [
        ("monday.wav", "0.500", "anna"),
        ("monday.wav", "2.800", "bo"),
        ("tuesday.wav", "0.200", "anna"),
    ]
