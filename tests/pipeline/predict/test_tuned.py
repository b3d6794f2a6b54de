"""Predictions of an end-to-end run: its tuned backbones give what training predicted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import pipeline
from pipeline.command_line.app import app
from pipeline.e2e.run import finetune_model
from pipeline.e2e.setup import read_manifest
from pipeline.evaluation.calibration import scale
from pipeline.evaluation.run_folder import RunFolder
from tests.support.models.tuned_tones import RUN, Tones, cached, params_of


def check_exported(out: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Its folder holds the tuned backbones of each seed, and predicts the same without the run."""
    result = CliRunner().invoke(app, ["export", str(RUN), str(out)])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    RUN.rename(RUN.with_name("away"))
    utterances = read_manifest("mine")
    model = pipeline.load_run(out, device="cpu")
    found = model.predict([u.audio for u in utterances], texts=[u.text for u in utterances])
    RUN.with_name("away").rename(RUN)
    for u, row in zip(utterances, found, strict=True):
        for name in (name for name in row if name.startswith("p_")):
            assert row[name] == pytest.approx(rows[u.id][name], abs=1e-6), (u.id, name)


@pytest.mark.slow
def test_tuned_backbones_are_those_of_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path
) -> None:
    corpus = Tones(tmp_path, monkeypatch)
    corpus.write()
    corpus.prepare()
    params = params_of(tmp_path, slots={"text": {"tune": "lora"}})
    params.models["m"]["train"]["epochs"] = 2
    params.models["m"]["seeds"] = 2  # each tunes a backbone of its own
    cached(params, private_store, "tone")
    finetune_model(params, "m", "mine", device="cpu")
    Path("params.yaml").write_text(yaml.safe_dump({"backbones": params.backbones}))
    words = ["predict", str(RUN), str(corpus.root / "manifest.csv"), "--jsonl", "out.jsonl"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    rows = {row["id"]: row for row in map(json.loads, Path("out.jsonl").read_text().splitlines())}
    run = RunFolder.read(RUN)
    assert len(run.jobs) == 2
    for place, id in enumerate(run.jobs[0].table.column("id")):
        each = []
        for job, temperature in zip(run.jobs, rows[id]["temperatures"], strict=True):
            assert job.table.column("id")[place] == id
            shares = job.probabilities[[place]] / job.probabilities[place].sum()
            each.append(scale(shares, temperature)[0])
        found = [rows[id][f"p_{name}"] for name in run.classes]
        assert np.allclose(found, np.mean(each, axis=0), atol=1e-5), id
    check_exported(tmp_path / "exported", rows)
    shutil.rmtree(RUN / "seed_0/fold_0/backbones/speech")
    result = CliRunner().invoke(app, words)
    assert "the speech slot was trained with the model, and its weights were not kept" in str(
        result.exception
    )
