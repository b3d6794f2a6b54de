"""Predictions on another corpus, from its caches, by models that were trained on small tones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest
from features.corpus.prepare import prepare
from features.errors import CacheError
from features.files.reasons import REJECTED, write_reasons
from features.stream import StreamSpec
from pipeline.cached.run import train_model
from pipeline.commands.experiments import transfer as command
from pipeline.params.file import Params
from pipeline.transfer.ground import Ground
from pipeline.transfer.matrix import column
from pipeline.transfer.predictions import Source, key_of, opened, predicted
from tests.features.corpora.test_union import JOYFUL, extracted, write_member
from tests.support.known_params import shipped_raw

pytestmark = pytest.mark.slow


def small_params() -> Params:
    """A model on tones, two corpora of one fold and of three, and their union."""
    slots = dict.fromkeys(("text", "speech", "nonverbal", "prosody", "spectral", "asr"), "none")
    train = {"epochs": 2, "batch_size": 8, "lr": 0.01}
    model = {"kind": "concat", "seeds": 2, "args": {"d_model": 8}, "train": train}
    own = {"kind": "manifest", "shard_seconds": 0.5}
    return Params(
        **shipped_raw()
        | {
            "fusion": "small",
            "corpus": "both",
            "corpora": {
                "a": own | {"protocol": "official"},
                "b": own | {"protocol": "speaker_folds", "folds": 3},
                "both": {"kind": "union", "of": ["a", "b"], "labels": JOYFUL},
            },
            "models": {"small": slots | model | {"speech": "tone"}},
        }
    )


def test_all_models_predict_another_corpus_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HERONRY_DEVICE", "cpu")
    write_member("a", ("happy", "sad"), monkeypatch)
    write_member("b", ("sad", "joyful", "calm"), monkeypatch)
    params = small_params()
    entries = {n: corpus_entry(n, of, params.corpora) for n, of in params.corpora.items()}
    for name, entry in entries.items():
        prepare(entry, Path("data", name))
        extracted(name, dim=8, version=3)
        train_model(params, "small", name, device="cpu", workers=1)
    ground = Ground.read(entries["both"])
    runs = {name: Source.read(Path("runs/cached", name, "small")) for name in entries}

    rows = command._rows(ground, runs)
    assert "2 pairs of corpora to predict, 0 predicted before" in capsys.readouterr().err
    assert {row[1:3] for row in rows["a"]["b"]} == {(s, f) for s in (0, 1) for f in (0, 1, 2)}
    assert len(rows["a"]["b"]) == 2 * 6  # by each of six models
    assert len(rows["b"]["b"]) == 2 * 15  # each in the fold that left it out, by two seeds
    assert {row[0] for row in rows["b"]["both"]} == {row[0] for row in rows["b"]["b"]} - {
        label.id for label in ground.corpora["b"].labels if label.label == "calm"
    }
    found = column(ground, ground.corpora["b"], rows["b"])
    assert (found.utterances, found.models) == (10, {"a": 2, "b": 6, "both": 6})

    before = {path: path.stat().st_mtime_ns for path in command.OUT.rglob("*.csv")}
    assert command._rows(ground, runs) == rows
    assert "0 pairs of corpora to predict, 2 predicted before" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before

    b, examples = ground.corpora["b"], opened(runs["a"], ground.corpora["b"])
    for change in ({"dialogue": "d"}, {"turn": 3}):  # which decide what a model of dialogues reads
        labels = (dataclasses.replace(b.labels[0], **change), *b.labels[1:])
        moved = dataclasses.replace(b, labels=labels)
        assert key_of(runs["a"], moved, examples) != key_of(runs["a"], b, examples)

    slots = {slot: (name, {**of, "version": 99}) for slot, (name, of) in runs["a"].slots.items()}
    other = dataclasses.replace(runs["a"], slots=slots)
    with pytest.raises(CacheError, match="was computed by other weights or settings than those"):
        opened(other, ground.corpora["b"])


def write_states(corpus: str, numbers: list[int]) -> None:
    """Hidden states of a corpus's utterances, of width 4, as a stack or one alone."""
    spec = StreamSpec(4 * len(numbers), hop_seconds=0.02, layers=len(numbers))
    stored = numbers if len(numbers) > 1 else numbers[0]
    writer = CacheWriter(spec=spec, provenance={"layer": stored, "depth": 5}, dtype="float32")
    manifest = Manifest.read(Path("data", corpus, "utterances"))
    rows = []
    for place, id in enumerate(utterance.id for utterance in manifest):
        states = [np.random.default_rng([place, n]).normal(size=(3, 4)) for n in numbers]
        rows.append(writer.round(id, "c", np.concatenate(states, 1).astype(np.float32)))
    folder = Path("cache", corpus, "tone")
    folder.mkdir(parents=True)
    writer.write(folder / shard_name(0), rows)
    write_reasons(folder / REJECTED, {})


def test_a_model_of_one_state_reads_it_in_the_other_corpus_s_stack_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, numbers in (("stack", [0, 2, 5]), ("alone", [2])):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HERONRY_STORE", str(folder / "store"))
        write_member("a", ("happy", "sad"), monkeypatch)
        write_member("b", ("sad", "joyful", "calm"), monkeypatch)
        whisper = {"kind": "whisper", "checkpoint": "c/d", "layer": "all"}
        params = small_params()
        params = dataclasses.replace(params, backbones={**params.backbones, "tone": whisper})
        if len(numbers) > 1:
            model = dict(params.models["small"], inputs={"layer": {"speech": 2}})
            params = dataclasses.replace(params, models={"small": model})
        entries = {n: corpus_entry(n, of, params.corpora) for n, of in params.corpora.items()}
        for corpus, entry in entries.items():
            prepare(entry, Path("data", corpus))
        for corpus in ("a", "b"):
            write_states(corpus, numbers)
        run = Source.read(train_model(params, "small", "a", device="cpu", workers=1))
        examples = opened(run, Ground.read(entries["both"]).corpora["b"])
        assert examples.specs["speech"].dim == 4
        found.append([row for rows in predicted(run, examples, "cpu") for row in rows])
    assert found[0] == found[1]
    assert len(found[0]) == 2 * 16
