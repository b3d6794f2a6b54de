"""On the demo corpus with its embedded backbones, both modalities together beat either alone.

This is what the corpus is built for; see `features.corpora.demo` for its ceilings.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from features.backbone.entry import backbone_entry
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest
from features.corpus.prepare import prepare
from features.extraction.extract import extract
from features.weights import packages
from pipeline.cached.run import train_model
from pipeline.params.file import Params
from tests.support.known_params import known_params

pytestmark = [pytest.mark.slow, pytest.mark.embedded]
SEEDS = 3
MODELS = {
    "text": {"text": "minilm"},
    "speech": {"speech": "whisper_tiny_en"},
    "both": {"text": "minilm", "speech": "whisper_tiny_en"},
}


def accuracy(run: Path) -> float:
    """Mean over seeds on the test split."""
    right = []
    for path in sorted(run.rglob("predictions.csv")):
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
        right.append(np.mean([row["label"] == row["prediction"] for row in rows]))
    assert len(right) == SEEDS
    return float(np.mean(right))


def test_fusion_beats_either_alone(
    tmp_path: Path, private_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in packages.PACKAGES:
        if not packages.installed(package):
            pytest.skip(f"package {package} is not installed")
    shipped = known_params()
    monkeypatch.chdir(tmp_path)
    prepare(corpus_entry("demo", shipped.corpora["demo"]), Path("data/demo"))
    folder = Path("data/demo/utterances").resolve()
    manifest = Manifest.read(folder).located(folder)
    backbones: dict[str, dict[str, object]] = {"none": {}}
    for name in ("minilm", "whisper_tiny_en"):
        # Concat averages over time anyway: pooled features are the same and train faster.
        backbones[name] = {**shipped.backbones[name], "pooling": "mean"}
        entry = backbone_entry(name, backbones[name])
        tell = extract(manifest, entry, Path("cache/demo", name), store=private_store)
        assert not tell.rejected
    common = {**shipped.models["concat"], "speech": "none", "nonverbal": "none", "text": "none"}
    models = {name: {**common, "seeds": SEEDS, **slots} for name, slots in MODELS.items()}
    params = Params("both", "cached", "demo", None, {}, shipped.corpora, backbones, models)
    found = {
        name: accuracy(train_model(params, name, "demo", device="cpu", workers=1))
        for name in MODELS
    }
    assert found["both"] > found["text"] + 0.05
    assert found["both"] > found["speech"] + 0.05
    assert min(found.values()) > 3 / 8
