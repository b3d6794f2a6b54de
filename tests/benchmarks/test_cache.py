"""The cache benchmark runs and prints all its numbers; speed is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.cache import main
from benchmarks.cache import table as as_table

PEERS = {
    "in_ram_gather",
    "heronry_read",
    "hdf5_per_utterance",
    "npy_per_utterance",
    "pt_per_utterance",
    "safetensors_per_utterance",
}


@pytest.mark.slow
def test_small_run_prints_all_ratios(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    words = ["--json", "--small", "--rounds", "1", "--folder", str(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    result = json.loads(done.stdout)
    for section in ("frames", "pooled"):
        for part in ("warm_float32", "warm_float16"):
            assert set(result[section][part]) == PEERS | {"heronry_seconds"}
        assert set(result[section]["cold_float32"]) == PEERS - {"in_ram_gather"} | {
            "heronry_seconds"
        }
    low, high = result["frames"]["warm_float32"]["in_ram_gather"]["range"]
    assert 0 < low <= result["frames"]["warm_float32"]["in_ram_gather"]["median"] <= high
    npy = result["frames"]["warm_packed"]["npy_per_utterance"]
    assert npy["in_ram"]["range"][0] <= npy["in_ram"]["median"]
    assert result["frames"]["warm_packed"]["in_ram_gather"]["in_ram"]["range"] == [1, 1]
    assert "in_ram" not in result["frames"]["cold_float32"]["npy_per_utterance"]
    assert result["beyond_memory"]["map_over_read"]["median"] > 0
    assert set(result["write"]) == {"raw_over_heronry", "checksums_over_heronry"}
    assert result["descriptors"]["held"] == 0
    assert result["verify"]["verify_mib"] < 8
    assert not list(tmp_path.iterdir())
    rows = [line for line in as_table(result).splitlines() if "npy_per_utterance" in line]
    assert f"in_ram {npy['in_ram']['median']} " in rows[2]
