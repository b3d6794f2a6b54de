"""The model card against run.json, card.json and history.csv; its code loads the model."""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.files.records import read_json, write_json
from features.stream import StreamSpec
from pipeline.cached.run import train_model
from pipeline.metrics.classes import MONITORS
from pipeline.model.base import FusionModel
from pipeline.params.file import Params
from pipeline.report.model_card import NAME, model_card, write_model_card
from tests.pipeline.training.test_loop import CLASSES, labels_of, project
from tests.support.runs.fake_targets import FakeTargets

SAID = {"train": 18, "valid": 6, "test": 6}  # of each class, by `project`
FACTS = {
    "title": "A | corpus",
    "licence": "CC BY-NC-SA 4.0",
    "citation": "Somebody 2020",
    "disclaimer": "Made up.",
    "protocol": "speaker_split",
    "counts": [{split: dict.fromkeys(CLASSES, each) for split, each in SAID.items()}],
}


def trained(params: Params, **facts: Any) -> tuple[Path, str]:
    path = Path("data/c/labels/card.json")
    write_json(path, read_json(path) | facts)
    out = train_model(params, "m", "c", device="cpu", workers=1)
    write_model_card(out, read_json(path))
    return out, (out / NAME).read_text(encoding="utf-8")


def test_it_says_what_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = trained(project(tmp_path, monkeypatch), **FACTS)
    for said in (
        "# m on A \\| corpus",
        "- Corpus: A \\| corpus (`c`)",
        "- Licence: CC BY-NC-SA 4.0",
        "- Note: Made up.",
        "- Protocol: speaker_split, folds: 1",
        "- Labelled in fold 0: train 54, valid 18, test 18",
        f"3 emotions apart: {', '.join(CLASSES)}",
        "| speech | tone | test |",
        '"d_model": 8',
    ):
        assert said in text, said
    assert "train_seconds" not in text
    assert str(tmp_path) not in text


def test_scores_are_those_of_the_kept_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means over the folds, one line a seed."""
    out, text = trained(project(tmp_path, monkeypatch, folds=2))
    for seed in (0, 1):
        kept = []
        for fold in (0, 1):
            with (out / f"seed_{seed}" / f"fold_{fold}" / "history.csv").open() as file:
                kept += [row for row in csv.DictReader(file) if row["best"] == "1"]
        means = [statistics.fmean(float(row[f"valid_{name}"]) for row in kept) for name in MONITORS]
        (line,) = re.findall(rf"^\| {seed} \|.*", text, re.MULTILINE)
        assert line.endswith(" | ".join(f"{mean:.4f}" for mean in means) + " |")


def test_the_three_lines_load_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = trained(project(tmp_path, monkeypatch))
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) == 3
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["classes"] == CLASSES
    assert isinstance(found["model"], FusionModel)


def test_equal_trainings_have_equal_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their run.json differ in the seconds they took."""
    params = project(tmp_path, monkeypatch)
    out, text = trained(params)
    run = read_json(out / "run.json")
    (out / NAME).unlink()
    write_json(out / "run.json", run | {"train_seconds": run["train_seconds"] + 9})
    write_model_card(out, {"classes": CLASSES})
    again = (out / NAME).read_text(encoding="utf-8")
    assert again == text
    assert trained(params)[1] == text


def test_what_a_corpus_card_lacks_is_said() -> None:
    run = {
        "fusion": "m",
        "regime": "cached",
        "corpus": "c",
        "kind": "concat",
        "parameters": 1234,
        "classes": CLASSES,
        "seeds": [3],
        "folds": 1,
        "utterances": 90,
        "dropped": {"u1": "text: bad"},
        "slots": {"text": None, "prosody": {"backbone": "f0", "provenance": {"kind": "f0"}}},
        "args": {},
        "train": {"monitor": "uar"},
    }
    kept = [{"epoch": "4", **{f"valid_{name}": "0.5" for name in MONITORS}}]
    text = model_card(run, {}, [kept])
    assert "- Licence: not stated" in text
    assert "1 without features" in text
    assert "- Note" not in text
    assert "| prosody | f0 | f0 | - |" in text
    assert "| 3 | 4 | 0.5000 |" in text
    assert "- Constructor: defaults" in text
    assert "Of the epochs with the best uar on the validation split" in text
    last = model_card({**run, "train": {"monitor": "last"}}, {}, [kept])
    assert "Of the last epoch, which is kept whatever they are;" in last


def test_a_mix_of_layers_from_params_to_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is switched on stands in model.json, run.json and the card; switched off, in none."""
    params = project(tmp_path, monkeypatch)
    writer = CacheWriter(spec=StreamSpec(6, layers=3), provenance={"kind": "test"}, dtype="float32")
    cache = tmp_path / "cache" / "c" / "tone"
    generator = np.random.default_rng(0)
    rows = [
        writer.round(label.id, "c", generator.normal(size=(3, 6)).astype(np.float32))
        for label in labels_of()
    ]
    for path in cache.iterdir():
        path.unlink()
    writer.write(cache / shard_name(0), rows)
    inputs: dict[str, Any] = {"mix_layers": False, "layer_norm": []}
    params.models["m"].update(inputs=inputs)
    wide, text = trained(params)
    files = [wide / "run.json", wide / "seed_0" / "fold_0" / "model.json"]
    assert not any("inputs" in read_json(path) for path in files)
    assert "Before the model" not in text
    size = read_json(files[0])["parameters"]
    params.models["m"].update(inputs={"mix_layers": True})
    _, text = trained(params)
    expected = {"mix_layers": True, "layer_norm": []}
    assert [read_json(path)["inputs"] for path in files] == [expected] * 2
    assert f"Before the model: `{json.dumps(expected)}`" in text
    assert read_json(files[0])["parameters"] == size - 4 * 8 + 3 + 1


def test_a_card_says_what_else_a_model_predicts(tmp_path: Path) -> None:
    fake = FakeTargets(tmp_path, tasks=("votes", "attributes"), speakers=6).write()
    write_model_card(fake.run, read_json(fake.data / "card.json"))
    text = (fake.run / NAME).read_text(encoding="utf-8")
    assert "predicts how raters' votes divide among angry, happy, neutral, sad, and " in text
    assert "predicts arousal (1 to 7), valence (1 to 7)." in text
    assert "| seed | epoch | accuracy | uar | macro_f1 | weighted_f1 | jsd |" in text
