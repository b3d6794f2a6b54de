"""A trained model on recognised words: what replaces what, what is counted, what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.errors import CacheError, ParamsError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import write_json, write_rows
from features.stream import StreamSpec
from pipeline.cached.run import train_model
from pipeline.data.examples import Examples, join
from pipeline.model.checkpoint import make_model
from pipeline.params.file import Params, all_problems
from pipeline.report.evaluate import evaluate
from pipeline.runs.conditions import (
    CachedCondition,
    Condition,
    cached_conditions,
    write_conditions,
)
from pipeline.training import predict
from tests.pipeline.training.test_loop import CLASSES, DIM, labels_of
from tests.support.runs.fake_run import FakeRun
from tests.support.runs.pages import section_words

Frames = Mapping[str, NDArray[np.float32]]
ENCODER = {"kind": "text_encoder", "weights_sha256": "ab", "options": {"layer": -1}}


def frames_of(labels: list[Label], seed: int, length: int | None = None) -> Frames:
    """One to eight frames (or `length`) whose mean points to the class."""
    generator = np.random.default_rng(seed)
    found = {}
    for label in labels:
        values = generator.normal(size=(length or generator.integers(1, 9), DIM))
        values[:, CLASSES.index(label.class_name)] += 3
        found[label.id] = values.astype(np.float32)
    return found


def write(folder: Path, frames: Frames, lacking: set[str] | None = None, **facts: Any) -> Path:
    writer = CacheWriter(spec=StreamSpec(DIM), provenance=ENCODER | facts, dtype="float32")
    rows = [writer.round(id, "c", values.copy()) for id, values in frames.items()]
    folder.mkdir(parents=True)
    if rows:
        writer.write(folder / shard_name(0), rows)
    write_reasons(folder / REJECTED, dict.fromkeys(sorted(lacking or ()), "has no asr"))
    return folder


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    labels = labels_of()
    slots = {
        "text": write(tmp_path / "text", frames_of(labels, 0)),
        "speech": write(tmp_path / "speech", frames_of(labels, 1)),
    }
    return join(slots, labels, CLASSES)


def by_name(
    conditions: Iterator[tuple[Condition, CachedCondition]],
) -> dict[str, CachedCondition]:
    return {condition.name: examples for condition, examples in conditions}


def test_only_recognised_words_replace_the_text(examples: Examples, tmp_path: Path) -> None:
    """The longest is among them, so that the others are padded to it."""
    test = examples.split(0, "test")
    heard = {label.id: np.ones((9 + n, DIM), np.float32) for n, label in enumerate(test[::2])}
    altered = by_name(
        cached_conditions(examples, test, 0, CacheReader(write(tmp_path / "asr", heard)))
    )
    plain, batch = examples.batch(test), altered["asr_text"].batch(test)
    assert torch.equal(batch.streams["speech"].values, plain.streams["speech"].values)
    rows = zip(test, plain.streams["text"].unpad(), batch.streams["text"].unpad(), strict=True)
    for label, reference, found in rows:
        expected = heard.get(label.id, reference.numpy())
        assert np.array_equal(found.numpy(), expected)
    assert not batch.streams["text"].values[~batch.streams["text"].mask].any()
    assert "asr_text" not in by_name(cached_conditions(examples, test, 0))


def test_others_words_as_recognised_are_the_shuffled_text(
    examples: Examples, tmp_path: Path
) -> None:
    """Two conditions that must agree, by different ways; and equal words change nothing."""
    torch.manual_seed(0)
    model, test = make_model("concat", {"d_model": 8}, examples.specs, 3), examples.split(0, "test")
    reader = examples.readers["text"]
    source = by_name(cached_conditions(examples, test, 5))["shuffled_text"].swapped["text"]
    shuffled = write(tmp_path / "asr", {id: reader[other] for id, other in source.items()})
    write_conditions(
        tmp_path / "a.csv", model, cached_conditions(examples, test, 5, CacheReader(shuffled)), test
    )
    found = predictions(tmp_path / "a.csv")
    assert found["asr_text"] == found["shuffled_text"]
    assert list(found)[-1] == "asr_text"
    same = write(tmp_path / "same", {label.id: reader[label.id] for label in test[1:]})
    write_conditions(
        tmp_path / "b.csv", model, cached_conditions(examples, test, 5, CacheReader(same)), test
    )
    silent = write(tmp_path / "silent", {id: 0 * reader[id] for id in source})
    write_conditions(
        tmp_path / "c.csv", model, cached_conditions(examples, test, 5, CacheReader(silent)), test
    )
    own = [CLASSES[k] for k in _guesses(model, examples, test)]
    assert predictions(tmp_path / "b.csv")["asr_text"] == own != found["shuffled_text"]
    silenced = predictions(tmp_path / "c.csv")
    assert silenced["asr_text"] == silenced["without_text"]


def test_turns_of_dialogues_are_replaced_too(tmp_path: Path) -> None:
    labels = [
        dataclasses.replace(label, dialogue=f"d{n // 4}", turn=n, splits=("test",))
        for n, label in enumerate(labels_of(12))
    ]
    slots = {"text": write(tmp_path / "text", frames_of(labels, 0, 1))}
    examples = join(slots, labels, CLASSES)
    heard = write(tmp_path / "asr", {"u1": np.full((1, DIM), 7, np.float32)})
    altered = by_name(cached_conditions(examples, labels, 0, CacheReader(heard)))["asr_text"]
    dialogues = [labels[:3], labels[4:8]]
    plain, batch = (each.dialogue_batch(dialogues) for each in (examples, altered))
    expected = plain.streams["text"].values.clone()
    expected[0, 1] = 7
    assert torch.equal(batch.streams["text"].values, expected)
    assert torch.equal(batch.streams["text"].mask, plain.streams["text"].mask)


def _guesses(model: Any, examples: Examples, test: Sequence[Label]) -> list[int]:
    return [int(k) for k in predict.evaluate(model, examples, test).probabilities.argmax(1)]


def predictions(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            found.setdefault(row["condition"], []).append(row["prediction"])
    return found


def params_of(model: dict[str, Any], **asr: Any) -> Params:
    settings = {"checkpoint": "x/y", "layer": -1, "version": 1}
    backbones: dict[str, Any] = {
        "bert": {"kind": "text_encoder", **settings},
        "bert_asr": {"kind": "asr_text", **settings, **asr},
        "tone": {},
        "none": {},
    }
    train = {"epochs": 2}
    entry = {"kind": "concat", "seeds": 2, "args": {"d_model": 8}, "train": train} | model
    corpora = {"c": {"kind": "demo", "protocol": "official"}}
    return Params("m", "cached", "c", None, {}, corpora, backbones, {"m": entry})


BOTH = {"text": "bert", "speech": "tone", "asr": "bert_asr"}


def test_an_entry_must_be_the_text_slots_own_but_for_its_words() -> None:
    assert all_problems(params_of(BOTH)) == []
    assert all_problems(params_of(BOTH, max_tokens=None, pooling="frames")) == []  # defaults
    (found,) = all_problems(params_of(BOTH, layer=4, pooling="mean"))
    assert found.startswith(
        "models.m.asr: 'bert_asr' differs from 'bert' of the text slot in layer (4, not -1), "
        "pooling (mean, not frames); expected the same settings"
    )
    (found,) = all_problems(params_of(BOTH | {"asr": "tone"}))
    assert "models.m.asr: given 'tone'; expected `none`" in found
    assert "one of ['bert_asr']" in found
    (found,) = all_problems(params_of(BOTH | {"asr": "bret"}))
    assert "given 'bret'" in found


def test_without_a_text_slot_there_is_nothing_to_replace() -> None:
    assert all_problems(params_of(BOTH | {"text": "none"}, layer=4)) == []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folds, and features of recognised words for all but two test utterances of the first."""
    monkeypatch.chdir(tmp_path)
    labels = [
        dataclasses.replace(label, text="Yes, it is.", asr="yes it") for label in labels_of(folds=2)
    ]
    write_rows(_made(tmp_path / "data/c/labels") / "labels.jsonl", labels)
    write_json(tmp_path / "data/c/labels/card.json", {"classes": CLASSES, "folds": 2})
    text = frames_of(labels, 0)
    for name, seed in (("bert", 0), ("tone", 1)):
        write(tmp_path / "cache/c" / name, frames_of(labels, seed))
    lacking = {label.id for label in [x for x in labels if x.splits[0] == "test"][:2]}
    heard = {id: values for id, values in text.items() if id not in lacking}
    write(tmp_path / "cache/c/bert_asr", heard, lacking, kind="asr_text", options={})
    return tmp_path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.mark.usefixtures("project")
def test_a_run_is_tested_on_recognised_words_and_says_on_how_many() -> None:
    out = train_model(params_of(BOTH), "m", "c", device="cpu", workers=1)
    record = json.loads((out / "run.json").read_text())["asr"]
    tested = [label for label in labels_of(folds=2) if "test" in label.splits]
    assert (record["backbone"], record["spec"]["dim"]) == ("bert_asr", DIM)
    assert record["provenance"] == ENCODER | {"kind": "asr_text", "options": {}}
    assert (record["tested"], record["recognised"]) == (len(tested), len(tested) - 2)
    assert record["words"] == 3 * record["recognised"] == 3 * record["word_errors"]
    for path in out.rglob("conditions.csv"):
        with path.with_name("predictions.csv").open() as file:
            own = [row["prediction"] for row in csv.DictReader(file) if row["split"] == "test"]
        assert predictions(path)["asr_text"] == own  # here both are of the same features


def test_other_weights_are_refused_before_training(project: Path) -> None:
    frames = frames_of(labels_of(folds=2), 0)
    write(project / "cache/c/other", frames, kind="asr_text", weights_sha256="cd")
    (project / "cache/c/bert_asr").rename(project / "cache/c/old")
    (project / "cache/c/other").rename(project / "cache/c/bert_asr")
    with pytest.raises(ParamsError, match=r"in weights_sha256 \(cd, not ab\); expected features"):
        train_model(params_of(BOTH), "m", "c", device="cpu")
    assert not (project / "runs").exists()


def test_a_cache_of_another_corpus_is_refused(project: Path) -> None:
    write_reasons(project / "cache/c/bert_asr" / REJECTED, {})
    with pytest.raises(CacheError, match="neither holds utterance"):
        train_model(params_of(BOTH), "m", "c", device="cpu")


def test_a_corpus_without_recognised_words_is_trained_all_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cache/c/bert_asr").rename(project / "cache/c/old")
    write(project / "cache/c/bert_asr", {}, {label.id for label in labels_of(folds=2)})
    out = train_model(params_of(BOTH), "m", "c", device="cpu", workers=1)
    assert "m is not tested on recognised words" in capsys.readouterr().err
    assert "asr" not in json.loads((out / "run.json").read_text())
    assert all("asr_text" not in predictions(path) for path in out.rglob("conditions.csv"))


def test_the_report_names_the_condition_and_what_it_rests_on(tmp_path: Path) -> None:
    record = {"backbone": "bert_asr", "tested": 36, "recognised": 30, "word_errors": 9, "words": 40}
    fake = FakeRun(tmp_path, extras=True, facts=True).write(asr=record)
    for path in fake.run.rglob("conditions.csv"):
        path.write_text(path.read_text().replace("shuffled_text", "asr_text"))
    found = section_words("robustness", evaluate(fake.run, fake.data))
    assert "recognised text (ASR) 0.000 0.000 0.000 0.000" in found
    assert "credible" not in found  # four speakers are too few for an interval
    assert "Recognised text: 30 of 36 test utterances get the words" in found
    assert "The other 6 keep the reference text" in found
    assert "Word error rate against the reference: 22.5% of 40 words" in found
    plain = FakeRun(tmp_path / "plain", extras=True, facts=True).write()
    assert "Recognised" not in section_words("robustness", evaluate(plain.run, plain.data))
