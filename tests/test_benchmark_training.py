"""The training benchmark runs and says what it promises; how fast anything is, is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.training import main
from benchmarks.training import table as as_table


@pytest.mark.slow
def test_small_run_prints_all_ratios(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    words = ["--json", "--small", "--rounds", "1", "--folder", str(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    result = json.loads(done.stdout)
    for kind in ("concat", "heron"):
        assert result[kind]["utterances"] == 22
        low, high = result[kind]["reading_percent"]["range"]
        assert 0 < low <= result[kind]["reading_percent"]["median"] <= high
        assert result[kind]["deterministic"]["median"] > 0
        assert set(result[kind]["saving"]) == {"seconds", "megabytes"}
    assert result["side_by_side"]["jobs"] == result["cores"]
    assert not list(tmp_path.iterdir())
    assert "side by side" in as_table(result)
