"""On the demo corpus with its embedded backbones, models learn what their modality can tell.

Both together beat either alone, words tell valence and the voice arousal. This is what the corpus
is built for; see `features.corpora.demo` for its ceilings.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
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


TARGETS = ["classes", "votes", "attributes"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Params]:
    """Settings of the models, in a folder with the corpus and its pooled features."""
    for package in packages.PACKAGES:
        if not packages.installed(package):
            pytest.skip(f"package {package} is not installed")
    root, shipped = tmp_path_factory.mktemp("demo"), known_params()
    corpora = {"demo": {**shipped.corpora["demo"], "targets": TARGETS}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HERONRY_STORE", str(root / "store"))
        prepare(corpus_entry("demo", corpora["demo"]), Path("data/demo"))
        folder = Path("data/demo/utterances").resolve()
        manifest = Manifest.read(folder).located(folder)
        backbones: dict[str, dict[str, object]] = {"none": {}}
        for name in ("minilm", "whisper_tiny_en"):
            # Concat averages over time anyway: pooled features are the same and train faster.
            backbones[name] = {**shipped.backbones[name], "pooling": "mean"}
            entry = backbone_entry(name, backbones[name])
            tell = extract(manifest, entry, Path("cache/demo", name), store=root / "store")
            assert not tell.rejected
        common = {**shipped.models["concat"], "speech": "none", "nonverbal": "none", "text": "none"}
        models = {name: {**common, "seeds": SEEDS, **slots} for name, slots in MODELS.items()}
        yield Params("both", "cached", "demo", None, {}, corpora, backbones, models)


def predicted(run: Path) -> Iterator[list[dict[str, str]]]:
    """Rows of the test split, seed by seed."""
    for seed in range(SEEDS):
        with (run / f"seed_{seed}" / "fold_0" / "predictions.csv").open() as file:
            yield [row for row in csv.DictReader(file) if row["split"] == "test"]


def accuracy(run: Path) -> float:
    """Mean over seeds on the test split."""
    right = [
        np.mean([row["label"] == row["prediction"] for row in rows]) for rows in predicted(run)
    ]
    return float(np.mean(right))


def ccc(run: Path, attribute: str) -> float:
    """Mean over seeds of the concordance of an attribute, on the test split."""
    found = []
    for rows in predicted(run):
        truth, guess = (
            np.array([float(row[f"{key}_{attribute}"]) for row in rows]) for key in ("y", "v")
        )
        spread = truth.var() + guess.var() + (truth.mean() - guess.mean()) ** 2
        found.append(2 * np.cov(truth, guess, ddof=0)[0, 1] / spread)
    return float(np.mean(found))


def test_fusion_beats_either_alone(demo: Params) -> None:
    found = {
        name: accuracy(train_model(demo, name, "demo", device="cpu", workers=1)) for name in MODELS
    }
    assert found["both"] > found["text"] + 0.05
    assert found["both"] > found["speech"] + 0.05
    assert min(found.values()) > 3 / 8


def test_words_tell_valence_and_the_voice_arousal(demo: Params) -> None:
    learnt = {"targets": ["attributes"], "monitor": "ccc"}
    runs = {
        name: train_model(replace(demo, train=learnt), name, "demo", device="cpu", workers=1)
        for name in MODELS
    }
    arousal, valence = (
        {name: ccc(run, attribute) for name, run in runs.items()}
        for attribute in ("arousal", "valence")
    )
    assert valence["text"] > arousal["text"]
    assert arousal["speech"] > valence["speech"]
    assert arousal["both"] > arousal["text"]
    assert valence["both"] > valence["speech"]
