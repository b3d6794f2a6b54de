"""Predictions on new recordings equal those on cached features, of every fusion and backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from features.backbone.entry import PACKAGE, BackboneEntry, backbone_entry
from features.backbones.text_encoder import TextEncoder
from features.settings.plugins import load
from pipeline.command_line.app import app
from pipeline.evaluation.calibration import scale
from pipeline.evaluation.run_folder import RunFolder
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import text_encoder
from tests.contracts.test_backbones import Bench, bench, cases
from tests.support.models.small_fusions import ALL, specs_of
from tests.support.runs.random_run import RandomRun

__all__ = ["bench"]

SECONDS = [0.9, 0.5, 1.3, 0.7]
CHEAP: dict[str, dict[str, Any]] = {
    "speech": {"kind": "tone"},
    "nonverbal": {"kind": "logmel"},
    "prosody": {"kind": "f0", "method": "dio"},
    "spectral": {"kind": "tone", "dim": 6},
}


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a small text encoder."""
    options = text_encoder.VARIANTS["bert"](tmp_path_factory.mktemp("words") / "bert")
    return {"kind": "text_encoder", **options}


def predicted(run: RandomRun, *words: str) -> dict[str, dict[str, Any]]:
    """Rows by id that `heronry predict` writes about the utterances of a run."""
    table = run.table(run.folder / "new.csv", "text", "asr", "dialogue", "turn")
    out = run.folder / "new.jsonl"
    result = CliRunner().invoke(
        app, ["predict", str(run.path), str(table), "--jsonl", str(out), *words]
    )
    assert result.exit_code == 0, result.output
    return {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}


def check_equal(run: RandomRun, rows: dict[str, dict[str, Any]]) -> None:
    """Compare with the test rows of predictions.csv (mean over seeds), and with conditions.csv."""
    folder = RunFolder.read(run.path)
    for id in {id for job in folder.jobs for id in np.array(job.table.column("id"))[job.test]}:
        scales, expected = rows[id]["temperatures"], []
        for job, temperature in zip(folder.jobs, scales or [None], strict=True):
            place = job.table.column("id").index(id)
            shares = job.probabilities[[place]]
            shares = shares / shares.sum(1, keepdims=True) if shares.size else shares
            scaled = shares if temperature is None else scale(shares, temperature)
            expected.append([*scaled[0], *job.values[place]])
        columns = folder.targets.columns
        names = [*(f"p_{k}" for k in columns.classes), *(f"v_{k}" for k in columns.attributes)]
        found = [rows[id][name] for name in names]
        assert np.allclose(found, np.mean(expected, 0), atol=1e-5), id
    if len(folder.jobs) == 1 and folder.classes:
        (job,) = folder.jobs
        tested = np.array(job.table.column("id"))[job.test]
        for name, guess in job.conditions.items():
            if name.startswith("without_"):
                named = [folder.classes[k] for k in guess.predictions]
                assert [rows[id][name] for id in tested] == named, name


def entry_of(slot: str, options: dict[str, Any], **more: Any) -> BackboneEntry:
    return backbone_entry(f"b_{slot}", {"version": 2, **options, **more})


def test_views_of_layers(
    words: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_manifest: ManifestMaker,
    private_store: Path,
) -> None:
    """Two slots that take different states of one stack, which is computed once."""
    monkeypatch.chdir(tmp_path)
    stack = entry_of("text", words, layer="all")
    entries = {"text": stack, "nonverbal": stack, "speech": entry_of("speech", CHEAP["speech"])}
    layer = {"text": 1, "nonverbal": -1}
    run = RandomRun(tmp_path, make_manifest(SECONDS), entries, layer=layer).write(private_store)
    check_equal(run, predicted(run))


@pytest.mark.parametrize("kind", ALL)
def test_every_fusion(
    kind: str,
    words: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_manifest: ManifestMaker,
    private_store: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    pooled = {"pooling": "mean"} if kind == "lpgnet" else {}
    entries = {
        slot: entry_of(slot, words if slot == "text" else CHEAP[slot], **pooled)
        for slot in specs_of(kind)
    }
    run = RandomRun(tmp_path, make_manifest(SECONDS), entries, kind).write(private_store)
    check_equal(run, predicted(run))


@pytest.mark.parametrize(("kind", "variant"), cases())
def test_every_backbone(
    kind: str,
    variant: str,
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_manifest: ManifestMaker,
    private_store: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"kind": kind, **bench.options_of(kind, variant)}
    entry = entry_of("x", options, store_dtype="float16")
    slot = "prosody" if kind == "f0" else "text" if _reads_words(kind) else "speech"
    entries = {slot: entry}
    run = RandomRun(tmp_path, make_manifest(SECONDS), entries, "concat").write(private_store)
    if kind == "imported":
        message = "features that were imported"
        result = CliRunner().invoke(app, ["predict", str(run.path), "audio"])
        assert message in str(result.exception)
        return
    check_equal(run, predicted(run))


def _reads_words(kind: str) -> bool:
    return isinstance(load(PACKAGE, kind), type) and issubclass(load(PACKAGE, kind), TextEncoder)
