"""The training benchmark runs and prints all its numbers; speed is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.shared.training_inputs import CLASSES, make_caches, make_jobs, make_labels
from benchmarks.training import accelerator, main
from benchmarks.training import table as as_table
from pipeline.data.examples import join


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
        assert result[kind]["read_ahead"]["median"] > 0
        assert set(result[kind]["saving"]) == {"seconds", "megabytes"}
    assert result["side_by_side"]["jobs"] == result["cores"]
    assert not list(tmp_path.iterdir())
    assert "side by side" in as_table(result)
    if result["accelerator"] is None:
        assert "accelerator: left out" in as_table(result)


@pytest.mark.slow
def test_rows_of_an_accelerator(tmp_path: Path) -> None:
    """On a CPU, which takes a resident copy as well if it is asked to."""
    args, labels = {"d_model": 16}, make_labels(24)
    slots = make_caches(tmp_path, labels, 16)
    jobs = make_jobs(slots, labels, args, tmp_path / "runs", epochs=1)
    found = accelerator("cpu", args, join(slots, labels, CLASSES), jobs[0], 1, processes=(2,))
    for kind in ("concat", "heron"):
        ways = found[f"{kind}_reading"]
        assert ways["fits"]
        assert set(ways["epoch_seconds"]) == {"resident", "streamed", "waited_for"}
        assert ways["resident_speedup"]["median"] > 0
    assert found["seeds"]["jobs"] == 2
    assert list(found["seeds"]["speedup"]) == ["2"]
    assert "seeds" in as_table(table_of(found))


def table_of(found: dict[str, object]) -> dict[str, object]:
    """A result whose other rows are of no interest."""
    model = {"utterances": 1, "epoch_seconds": 1.0}
    return {"concat": model, "heron": model, "cores": 1, "side_by_side": {}, "accelerator": found}
