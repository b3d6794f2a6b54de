"""The curve of a stack's layers finds the one that tells the classes, and is that of each alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler

from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.errors import CacheError, HeronryError, ManifestError, ParamsError, RunError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import write_json, write_rows
from features.stream import StreamSpec
from pipeline.cached.run import train_model
from pipeline.commands.layers import layers
from pipeline.evaluation.layers import CHOOSES, LayerCurve, mixed_slots
from pipeline.evaluation.run_folder import RunFolder
from pipeline.layers.page import LayersPage
from pipeline.layers.probing import probed
from pipeline.layers.stack import LayerStack
from pipeline.params.file import Params
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import read_all, split_of
from tests.support.runs.pages import section_words

CLASSES = ["calm", "angry", "sad"]
SPLITS = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
FOLDS, WIDTH, DEPTH = 5, 3, 9


def labels_of(folds: int = FOLDS) -> list[Label]:
    """Ten speakers; with five folds each is tested once."""
    return [
        Label(
            id=f"u{i}",
            label=CLASSES[i // 10 % 3],
            speaker=f"s{i % 10}",
            splits=tuple(SPLITS[(i + 2 * fold) % 10] for fold in range(folds)),
        )
        for i in range(120)
    ]


def write_corpus(root: Path, labels: Sequence[Label], classes: Sequence[str] = CLASSES) -> None:
    folder = root / "data/c/labels"
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "labels.jsonl", labels)
    card: dict[str, Any] = {"classes": list(classes), "folds": len(labels[0].splits)}
    write_json(folder / "card.json", card | {"corpus": "c", "leaks": []})


def write_cache(
    root: Path,
    entry: str,
    numbers: int | Sequence[int] | None,
    labels: Sequence[Label],
    signals: Mapping[int, float],
    **provenance: Any,
) -> None:
    """Features of some hidden states, which point to the class as strongly as `signals` says."""
    several = list(numbers) if isinstance(numbers, Sequence) else [numbers or 0]
    spec = StreamSpec(WIDTH * len(several), layers=len(several))
    facts = {} if numbers is None else {"layer": numbers, "depth": DEPTH}
    writer = CacheWriter(spec=spec, provenance={**facts, **provenance}, dtype="float32")
    rows = []
    for label in labels:
        length, states = 1 + int(label.id[1:]) % 5, []
        for number in several:
            state = np.random.default_rng([int(label.id[1:]), number]).normal(size=(length, WIDTH))
            state[:, CLASSES.index(label.class_name)] += signals.get(number, 0.0)
            states.append(state)
        rows.append(writer.round(label.id, "c", np.concatenate(states, 1).astype(np.float32)))
    folder = root / "cache/c" / entry
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[::2], rows[1::2])):  # not in the order of the corpus
        writer.write(folder / shard_name(number), part)
    write_reasons(folder / REJECTED, {})


def curve_of(root: Path, *entries: str) -> LayerCurve:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return probed(LayerStack.open("c", entries))


@given(numbers=st.sets(st.integers(0, DEPTH), min_size=2, max_size=4), data=st.data())
@settings(max_examples=8, deadline=None)
def test_the_one_layer_that_tells_the_classes_is_chosen(
    numbers: set[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    order = data.draw(st.permutations(sorted(numbers)))
    telling = data.draw(st.sampled_from(order))
    root, labels = tmp_path_factory.mktemp("c"), labels_of(1)
    write_corpus(root, labels)
    write_cache(root, "stack", order, labels, {telling: 4.0})
    found = curve_of(root, "stack")
    assert [layer.number for layer in found.layers] == sorted(numbers)
    assert found.chosen == telling
    for layer in found.layers:
        assert (
            (layer.valid[CHOOSES] > 0.9) == (layer.test[CHOOSES] > 0.9) == (layer.number == telling)
        )


HELD = [0, 2, 5]
SIGNALS = {2: 1.0, 5: 0.6}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack, and each of its states as an entry of its own, whose network ends there."""
    root, labels = tmp_path_factory.mktemp("project"), labels_of()
    write_corpus(root, labels)
    facts = {"checkpoint": "c/d", "revision": "r"}
    write_cache(root, "stack", HELD, labels, SIGNALS, **facts, weights_sha256="w5")
    for number in HELD:
        weights = {"weights_sha256": f"w{number}"}
        write_cache(root, f"layer_{number}", number, labels, SIGNALS, **facts, **weights)
    write_cache(root, "other", 7, labels, SIGNALS, **facts | {"checkpoint": "another"})
    loose = {"checkpoint": "c/d", "weights_sha256": "w7"}
    write_cache(root, "loose", 7, labels, SIGNALS, **loose)
    write_cache(root, "tone", None, labels, {})
    return root


def test_several_entries_of_one_network_are_their_stack(root: Path) -> None:
    stack, singles = curve_of(root, "stack"), curve_of(root, "layer_5", "layer_0", "layer_2")
    assert stack.layers == singles.layers
    assert (stack.chosen, stack.clusters) == (singles.chosen, singles.clusters)
    assert curve_of(root, "layer_5", "layer_2").layers != stack.layers


def test_a_probe_is_scikit_learn_s_on_the_layer_alone(root: Path) -> None:
    """Folds pooled on the test split, and averaged on the validation split."""
    labels = labels_of()
    for layer in curve_of(root, "stack").layers:
        reader = CacheReader(root / "cache/c" / f"layer_{layer.number}")
        means = np.stack([reader[label.id].mean(0, dtype=np.float64) for label in labels])
        truth: list[str] = []
        guesses: list[str] = []
        valid: list[float] = []
        for fold in range(FOLDS):
            of = {
                split: [row for row, label in enumerate(labels) if label.splits[fold] == split]
                for split in ("train", "valid", "test")
            }
            names = {split: [labels[row].class_name for row in rows] for split, rows in of.items()}
            scaler = StandardScaler().fit(means[of["train"]])
            model = LogisticRegression(max_iter=200)
            model.fit(scaler.transform(means[of["train"]]), names["train"])
            found = {
                split: list(model.predict(scaler.transform(means[rows])))
                for split, rows in of.items()
            }
            valid.append(f1_score(names["valid"], found["valid"], average="macro"))
            truth, guesses = truth + names["test"], guesses + found["test"]
        assert layer.test["macro_f1"] == pytest.approx(f1_score(truth, guesses, average="macro"))
        assert layer.valid["macro_f1"] == pytest.approx(np.mean(valid))


def test_test_scores_have_intervals_and_paired_differences(root: Path) -> None:
    found = curve_of(root, "stack")
    assert found.clusters.number == found.speakers == 10
    assert found.utterances == 120
    for layer in found.layers:
        interval = layer.intervals[CHOOSES]
        assert interval.low <= layer.test[CHOOSES] <= interval.high
        change = layer.change[CHOOSES]
        assert change.value == pytest.approx(layer.test[CHOOSES] - found.best.test[CHOOSES])
    own = found.best.change[CHOOSES]
    assert own.interval is not None
    assert (own.value, own.interval.low, own.interval.high) == (0, 0, 0)
    nothing = found.layers[0].change[CHOOSES].interval
    assert nothing is not None
    assert nothing.high < 0


@pytest.mark.parametrize(
    ("entries", "kind", "words"),
    [
        (["layer_2"], ParamsError, "layer_2 holds layer 2 alone; expected .*`layer: all`"),
        (["tone"], ParamsError, "c/tone holds no hidden states with numbers; expected"),
        (["stack", "layer_2"], ParamsError, "layer_2 and stack both hold layer 2"),
        (["stack", "other"], ParamsError, "other differs from stack in checkpoint; expected"),
        (["stack", "loose"], ParamsError, "in revision, weights_sha256; expected .*a pinned"),
        (["stak"], CacheError, r"stak holds no features.*did you mean 'stack'.*extract c stak"),
        (["../x"], ParamsError, "backbones.../x: given the name"),
        (["stack", "stack"], ParamsError, "expected each entry once"),
    ],
)
def test_what_is_no_stack_is_refused_with_the_remedy(
    root: Path,
    entries: list[str],
    kind: type[HeronryError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(kind, match=words):
        layers("c", entries)


def test_a_corpus_that_is_not_prepared_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match=r"data/d/labels"):
        layers("d", ["stack"])


def test_the_page_says_what_chose_and_what_it_rests_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    layers("c", ["stack"])
    folder = root / "reports/layers/c-stack"
    record = json.loads((folder / "layers.json").read_text())
    chosen = record["chosen"]
    assert record["chosen_by"] == "valid_macro_f1"
    assert [layer["number"] for layer in record["layers"]] == HELD
    with (folder / "layers.csv").open() as file:
        rows = {row["layer"]: row for row in csv.DictReader(file)}
    assert [name for name, row in rows.items() if row["chosen"] == "1"] == [str(chosen)]
    best = next(layer for layer in record["layers"] if layer["number"] == chosen)
    assert float(rows[str(chosen)]["uar_low"]) == pytest.approx(
        best["intervals"]["uar"]["low"], abs=1e-6
    )
    assert (
        max(layer["valid"]["macro_f1"] for layer in record["layers"]) == best["valid"]["macro_f1"]
    )
    page = (folder / "index.html").read_text()
    assert f"layer {chosen} is chosen by validation" in page  # in words, beside the plot
    printed = capsys.readouterr()
    starred = [line for line in printed.out.splitlines() if line.startswith("*")]
    assert starred[0].split()[1] == str(chosen)
    layers("c", ["stack"])
    assert (folder / "index.html").read_text() == page


def test_few_speakers_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of(1)
    write_corpus(tmp_path, labels)
    write_cache(tmp_path, "stack", HELD, labels, SIGNALS)
    monkeypatch.chdir(tmp_path)
    stack = LayerStack.open("c", ["stack"])
    found = LayersPage(stack, probed(stack))
    assert "Only 2 speakers in the test split" in found.warnings[0]
    assert "Only 2 speakers" in found.write(tmp_path / "page").read_text()
    assert not found.curve.best.intervals
    assert "holds 0" not in (tmp_path / "page/index.html").read_text()


def trained(root: Path, inputs: Mapping[str, Any], seeds: int = 1) -> Path:
    """A run on the stack."""
    model = {"kind": "concat", "speech": "stack", "seeds": seeds, "inputs": inputs}
    model |= {"args": {"d_model": 8}, "train": {"epochs": 2, "lr": 0.05}}
    whisper = {"kind": "whisper", "checkpoint": "c/d", "layer": "all"}
    backbones: dict[str, Any] = {"stack": whisper, "none": {}}
    params = Params("m", "cached", "c", None, {}, {"c": {}}, backbones, {"m": model})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return root / train_model(params, "m", "c", device="cpu", workers=1)


def test_a_report_has_the_curve_and_the_learned_weights(root: Path, tmp_path: Path) -> None:
    run = trained(root, {"mix_layers": ["speech"]}, seeds=2)
    report = evaluate(run, root / "data/c/labels")
    (curve,) = report.curves
    assert curve.name == "speech"
    assert curve.layers == curve_of(root, "stack").layers  # as the command finds them
    write_report(report, tmp_path)
    numbers = read_all(tmp_path)
    assert numbers[f"layer_speech_{curve.chosen}_uar"] == round(curve.best.test["uar"], 6)
    assert numbers[f"valid_layer_speech_{curve.chosen}_uar"] == round(curve.best.valid["uar"], 6)
    every = []
    for seed in range(2):
        for fold in range(FOLDS):
            state = load_file(run / f"seed_{seed}/fold_{fold}/model.safetensors")
            shares = state["inputs.mixes.speech.weights"].softmax(0).tolist()
            every.append(shares)
            keys = [f"mix_speech_{number}_seed_{seed}_fold_{fold}" for number in HELD]
            assert [numbers[key] for key in keys] == pytest.approx(shares, abs=2e-6)
            scale = numbers[f"mix_speech_scale_seed_{seed}_fold_{fold}"]
            assert scale == pytest.approx(state["inputs.mixes.speech.scale"].item(), abs=2e-6)
    means = [numbers[f"mix_speech_{number}"] for number in HELD]
    assert means == pytest.approx(np.mean(every, axis=0).tolist(), abs=2e-6)
    assert split_of("mix_speech_2") is None
    found = section_words("layers", report)
    assert "Probes of speech (stack)" in found
    assert "Weights of the layers, of 10 trained models" in found
    # one layer of the stack: neither curve nor weights, and the page as it ever was
    plain = trained(root, {"layer": {"speech": 2}})
    assert not list(plain.rglob("layers.csv"))
    report = evaluate(plain, root / "data/c/labels")
    assert not report.curves
    assert not mixed_slots(report.run)
    write_report(report, tmp_path / "plain")
    assert 'id="layers"' not in (tmp_path / "plain/index.html").read_text()
    assert not any("layer" in key or "mix" in key for key in read_all(tmp_path / "plain"))


def test_probes_of_layers_that_do_not_fit_the_run_are_refused(root: Path) -> None:
    run = trained(root, {})
    path = run / "seed_0/fold_0/layers.csv"
    text = path.read_text()
    for old, new, words in (
        ("speech_2", "speech_x", "<slot>_<number of a layer>"),
        ("valid", "test", "split of its rows is not that of predictions.csv"),
        ("\nu", "\nv", "id of its rows"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(RunError, match=words):
            RunFolder.read(run)
    path.unlink()
    with pytest.raises(RunError, match="layers"):
        RunFolder.read(run)
