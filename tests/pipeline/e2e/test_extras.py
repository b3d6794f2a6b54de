"""Worse conditions of live backbones: other words for the text slot, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from pipeline.e2e.extras import live_conditions, live_vectors
from pipeline.e2e.source import LiveExamples
from pipeline.runs.conditions import cached_conditions, conditions_of, write_conditions
from pipeline.training.predict import evaluate
from tests.conftest import ManifestMaker
from tests.pipeline.e2e.test_model import dialogues
from tests.pipeline.runs.test_recognised import predictions
from tests.support.models.small_live import CLASSES, cached_of, entry_of, live_of, tuned_model

SECONDS = [0.3, 0.5, 0.4, 0.35, 0.42]
HEARD = {"u1": "quite another thing", "u3": "yes"}


@pytest.fixture
def live(make_manifest: ManifestMaker, tmp_path: Path) -> LiveExamples:
    made = make_manifest(SECONDS)
    rows = tuple(dataclasses.replace(u, asr=HEARD.get(u.id)) for u in made.utterances)
    manifest = dataclasses.replace(made, utterances=rows)
    entries = {"text": entry_of("bert", tmp_path), "speech": entry_of("data2vec", tmp_path)}
    return live_of(manifest, {slot: entry.build() for slot, entry in entries.items()})


def test_the_text_slot_alone_reads_other_words(live: LiveExamples) -> None:
    test = live.labels
    found = {each.name: e for each, e in live_conditions(live, test, 5, recognised=True)}
    assert list(found) == ["without_text", "without_speech", "shuffled_text", "asr_text"]
    (shuffled,) = (c for c in conditions_of([*live.specs], test, 5, recognised=False) if c.swapped)
    said = {u.id: u.text for u in live.utterances.values()}
    expected = {
        "shuffled_text": {id: said[other] for id, other in shuffled.swapped["text"].items()},
        "asr_text": said | HEARD,
    }
    plain = live.batch(test)
    for name, words in expected.items():
        batch = found[name].batch(test)
        utterances = [dataclasses.replace(live.utterances[x.id], text=words[x.id]) for x in test]
        tokens = live.backbones["text"].prepare(utterances).tensors
        assert torch.equal(batch.inputs["text"].tensors["input_ids"], tokens["input_ids"])
        assert batch.ids == batch.inputs["text"].ids == plain.ids
        heard, own = (each.inputs["speech"].tensors for each in (batch, plain))
        assert all(torch.equal(heard[key], own[key]) for key in own)


@pytest.mark.slow
def test_predictions_are_those_on_caches(
    tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    """Of a model that guesses by all it gets, so that each condition changes what it says."""
    manifest = make_manifest([0.1 + 0.01 * n for n in range(24)])
    entries = {"text": entry_of("bert", tmp_path), "speech": entry_of("hubert_group", tmp_path)}
    live = live_of(manifest, {slot: entry.build() for slot, entry in entries.items()})
    cached = cached_of(manifest, entries, tmp_path, private_store, "float32")
    model = tuned_model(live)
    with torch.no_grad():
        means = evaluate(model, live, live.labels).probabilities.mean(0)
        list(model.fusion.parameters())[-1].sub_(torch.from_numpy(means).log())
    changed = live_conditions(live, live.labels, 5, recognised=False)
    write_conditions(tmp_path / "live.csv", model, changed, live.labels, fusion=model.fusion)
    on_caches = cached_conditions(cached, live.labels, 5)
    write_conditions(tmp_path / "cached.csv", model.fusion, on_caches, live.labels)
    assert (tmp_path / "live.csv").read_text() == (tmp_path / "cached.csv").read_text()
    found = predictions(tmp_path / "live.csv")
    guesses = evaluate(model, live, live.labels).probabilities.argmax(1)
    plain = [CLASSES[k] for k in guesses.tolist()]
    assert len({tuple(each) for each in [plain, *found.values()]}) == 4


def test_turns_of_dialogues_get_the_words_that_cached_ones_get(
    tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    manifest, entry = make_manifest([0.1] * 12), entry_of("bert", tmp_path, pooling="mean")
    torch.manual_seed(0)
    model = dialogues(entry)
    live = live_of(manifest, model.backbones)
    cached = cached_of(manifest, {"text": entry}, tmp_path, private_store, "float32")
    changed = live_conditions(live, live.labels, 5, recognised=False)
    write_conditions(tmp_path / "live.csv", model, changed, live.labels, fusion=model.fusion)
    on_caches = cached_conditions(cached, live.labels, 5)
    write_conditions(tmp_path / "cached.csv", model.fusion, on_caches, live.labels)
    found = (tmp_path / "live.csv").read_text()
    assert found == (tmp_path / "cached.csv").read_text()
    assert found.count("shuffled_text") == len(live.labels)


def test_probes_get_the_mean_of_each_slot_whatever_its_batch(live: LiveExamples) -> None:
    model = tuned_model(live)
    found = live_vectors(model, live, live.labels)
    for row, label in enumerate(live.labels):
        with torch.inference_mode():
            alone = model.eval().streams(live.batch([label]))
        for slot, stream in alone.items():
            expected = stream.values[0].double().mean(0).numpy()
            assert found[slot][row] == pytest.approx(expected, abs=1e-5)
