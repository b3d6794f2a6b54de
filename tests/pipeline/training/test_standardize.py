"""`inputs.standardize` and `whiten`: statistics of the training frames alone, once, and saved."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.torch import load_file

from features.corpus.manifest import Label
from features.stream import Stream, StreamSpec
from pipeline.cached import resident
from pipeline.cached.run import run_job
from pipeline.data.examples import Examples, join
from pipeline.e2e.job import TuneJob, run_tune_job
from pipeline.e2e.model import EndToEnd
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import load_model, make_model
from pipeline.model.inputs import InputLayers, InputSettings, PreparedFusion
from pipeline.model.standardize import Moments, Standardize, Whiten
from pipeline.params.training import TrainParams
from pipeline.params.tuning import TuneParams
from pipeline.training import predict
from pipeline.training.predict import fit_inputs
from tests.conftest import ManifestMaker
from tests.pipeline.e2e.test_resume import job_of as live_job
from tests.pipeline.training.test_loop import (
    CLASSES,
    DIM,
    job_of,
    labels_of,
    results,
    write_cache,
)
from tests.support.models.small_live import CLASSES as TWO
from tests.support.models.small_live import cached_of, entry_of, live_of, logits
from tests.support.models.small_live import labels_of as live_labels

ON: dict[str, Any] = {"standardize": ["speech"]}
WHITE: dict[str, Any] = {"whiten": ["speech"]}
both = pytest.mark.parametrize("inputs", [ON, WHITE], ids=["standardize", "whiten"])
NUMBERS = st.floats(-1e6, 1e6, width=32)
FRAMES = arrays(np.float32, st.tuples(st.integers(0, 6), st.just(3)), elements=NUMBERS)


def total(utterances: Sequence[NDArray[Any]], layer: type[Standardize] = Standardize) -> Moments:
    found = layer.measure(torch.from_numpy(utterances[0]))
    for each in utterances[1:]:
        found = found + layer.measure(torch.from_numpy(each))
    return found


@given(st.lists(FRAMES, min_size=1, max_size=6).filter(lambda x: sum(map(len, x)) > 0))
def test_moments_add_up_to_those_of_all_frames(utterances: list[NDArray[np.float32]]) -> None:
    frames = np.concatenate(utterances).astype(np.float64)
    found, size = total(utterances), np.abs(frames).max(0)
    assert found.count == len(frames)
    assert np.allclose(found.mean, frames.mean(0), rtol=1e-12, atol=1e-12 * size.max())
    exact = frames.std(0)
    varies = exact > np.maximum(1e-5 * size, np.finfo(np.float32).tiny)
    assert np.allclose(found.std[varies], exact[varies], rtol=1e-6)
    products = total(utterances, Whiten)
    apart = frames - frames.mean(0)
    assert np.allclose(products.squares, apart.T @ apart, rtol=1e-6, atol=1e-11 * size.max() ** 2)
    assert np.allclose(products.std, found.std, rtol=1e-6)


@given(arrays(np.float32, 3, elements=st.floats(-(2.0**99), 2.0**99, width=32)), st.integers(1, 99))
def test_constant_dimensions_are_only_centred(value: NDArray[np.float32], count: int) -> None:
    found = total([np.tile(value, (1, 1)), np.tile(value, (count, 1))])
    assert np.array_equal(found.std, np.ones(3))
    layer = Standardize(3)
    layer.fit(found)
    assert torch.equal(layer(torch.from_numpy(value)), torch.zeros(3))


@settings(max_examples=20)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), st.integers(0, 99))
def test_training_frames_get_zero_mean_and_unit_variance(
    mean: float, std: float, seed: int
) -> None:
    frames = np.random.default_rng(seed).normal(mean, std, (200, 4)).astype(np.float32)
    layer = Standardize(4)
    assert not layer.fitted
    assert torch.equal(layer(torch.from_numpy(frames)), torch.from_numpy(frames))
    layer.fit(total([frames[:50], frames[50:]]))
    found = layer(torch.from_numpy(frames)).numpy()
    rounding = 1e-6 * (1 + abs(mean) / std)  # of float32, before the mean is subtracted
    assert np.allclose(found.mean(0), 0, atol=10 * rounding)
    assert np.allclose(found.std(0), 1, atol=10 * rounding)


@settings(max_examples=20)
@given(st.floats(1e-3, 1), st.floats(1e-4, 1e2), st.integers(0, 99))
def test_whitened_training_frames_have_the_correlations_that_shrinkage_leaves(
    shrinkage: float, noise: float, seed: int
) -> None:
    """R, with eigenvalues v, becomes a matrix with eigenvalues v / ((1 - s) v + s), axes as R's."""
    draw = np.random.default_rng(seed).normal
    # Neighbouring dimensions are nearly copies, as mel bands are; the last one is constant.
    frames = draw(size=(200, 1)) + noise * draw(size=(200, 4))
    frames = np.column_stack([frames * [1, 9, 1, 0.1] + 3, np.full(200, 7.0)]).astype(np.float32)
    layer = Whiten(5, shrinkage)
    assert torch.equal(layer(torch.from_numpy(frames)), torch.from_numpy(frames))
    layer.fit(total([frames[:50], frames[50:]], Whiten))
    found = layer(torch.from_numpy(frames)).double().numpy()
    assert np.allclose(found[:, 4], 0, atol=1e-4)
    values, vectors = np.linalg.eigh(np.corrcoef(frames[:, :4].astype(np.float64).T))
    expected = vectors * (values / ((1 - shrinkage) * values + shrinkage)) @ vectors.T
    assert np.allclose(np.cov(found[:, :4].T, bias=True), expected, atol=1e-2)
    amplified = torch.linalg.matrix_norm(layer.matrix, 2)
    assert float(amplified) <= shrinkage**-0.5 * (1 + 1e-5)


def test_whole_shrinkage_only_standardises() -> None:
    frames = np.random.default_rng(0).normal(size=(50, 2)) @ [[1.0, 1.0], [0.0, 0.1]]
    frames = frames.astype(np.float32)
    layers = Standardize(2), Whiten(2, 1.0)
    for layer in layers:
        layer.fit(total([frames], type(layer)))
    plain, white = (layer(torch.from_numpy(frames)) for layer in layers)
    assert torch.allclose(plain, white, atol=1e-6)


def test_whitened_padding_changes_nothing() -> None:
    layers = InputLayers({"speech": StreamSpec(3)}, InputSettings(whiten=("speech",)))
    torch.manual_seed(0)
    utterances = [torch.randn(n, 3) for n in (1, 5, 2)]
    layers.open["speech"].fit(total([each.numpy() for each in utterances], Whiten))
    together = layers({"speech": Stream.pad(utterances)})["speech"]
    assert not together.values[~together.mask].any()
    for one, among in zip(utterances, together.unpad(), strict=True):
        (alone,) = layers({"speech": Stream.pad([one])})["speech"].unpad()
        assert torch.allclose(alone, among, atol=1e-6)
        assert not torch.allclose(alone, one, atol=0.1)


def test_a_missing_slot_is_the_average() -> None:
    """As in modality dropout, which comes after this layer; and so without a report's hook."""
    layer = Standardize(2)
    layer.fit(Moments(9, np.array([5.0, -3.0]), np.array([9.0, 36.0])))
    given = torch.tensor([[0.0, 0.0], [0.0, -1.0], [5.0, -3.0]])
    expected = torch.tensor([[0.0, 0.0], [-5.0, 1.0], [0.0, 0.0]])
    assert torch.equal(layer(given), expected)
    white = Whiten(2, 0.5)
    white.fit(Moments(9, np.array([5.0, -3.0]), np.array([[9.0, 9.0], [9.0, 36.0]])))
    assert torch.equal(white(given)[[0, 2]], torch.zeros(2, 2))


@pytest.fixture
def slots(tmp_path: Path) -> dict[str, Path]:
    """Two slots whose frames are far from standardised, and differ by speaker."""
    folders = {"text": tmp_path / "text", "speech": tmp_path / "speech"}
    for number, folder in enumerate(folders.values()):
        write_cache(folder, labels_of(folds=2), 30.0, number)
    return folders


def frames_of(examples: Examples, labels: Sequence[Label]) -> NDArray[np.float64]:
    reader = examples.readers["speech"]
    return np.concatenate([reader[label.id] for label in labels]).astype(np.float64)


@both
def test_statistics_are_those_of_the_training_rows_and_saved_with_the_model(
    slots: dict[str, Path], tmp_path: Path, inputs: dict[str, Any]
) -> None:
    examples = join(slots, labels_of(folds=2), CLASSES)
    for fold in range(2):
        out = tmp_path / str(fold)
        job = dataclasses.replace(
            job_of(slots, out), inputs=inputs, fold=fold, labels=examples.labels
        )
        run_job(job)
        saved = load_file(out / "model.safetensors")
        frames = frames_of(examples, examples.split(fold, "train"))
        assert int(saved["inputs.scales.speech.frames"]) == len(frames)
        for name, exact in (("mean", frames.mean(0)), ("std", frames.std(0))):
            found = saved[f"inputs.scales.speech.{name}"].numpy()
            assert np.allclose(found, exact, rtol=1e-6, atol=1e-6)
            others = frames_of(examples, examples.labels)
            assert not np.allclose(found, getattr(others, name)(0), rtol=1e-4)
        assert not any("scales.text" in name for name in saved)
        matrix = saved.get("inputs.scales.speech.matrix", torch.eye(DIM))
        if inputs == WHITE:
            shrunk = 0.5 * (np.corrcoef(frames.T) + np.eye(DIM))
            assert np.allclose(matrix @ matrix, np.linalg.inv(shrunk), atol=1e-5)
        model, _ = load_model(out)
        test = examples.split(fold, "test")
        again = predict.evaluate(model, examples, test)
        with (out / "predictions.csv").open() as file:
            rows = {row["id"]: row for row in csv.DictReader(file) if row["split"] == "test"}
        for label, row in zip(test, again.probabilities, strict=True):
            assert np.allclose([float(rows[label.id][f"p_{c}"]) for c in CLASSES], row, atol=1e-5)
        batch = examples.batch(examples.labels[:7])
        values = batch.streams["speech"].values
        by_hand = Stream(
            ((values - saved["inputs.scales.speech.mean"]) / saved["inputs.scales.speech.std"])
            @ matrix
            * batch.streams["speech"].mask[..., None],
            batch.streams["speech"].mask,
        )
        assert isinstance(model, PreparedFusion)
        alone = Batch({**batch.streams, "speech": by_hand})
        assert torch.allclose(logits(model, batch), logits(model.fusion, alone), atol=1e-5)


@both
def test_same_bytes_for_any_batches_and_for_copies_on_the_device(
    slots: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inputs: dict[str, Any],
) -> None:
    """Of the statistics; in training, of the whole run where frames are copied."""
    job = dataclasses.replace(job_of(slots, tmp_path / "a"), inputs=inputs)
    run_job(job)
    run_job(dataclasses.replace(job, out=tmp_path / "b", resident=0.5))
    resident.release()
    assert results(tmp_path / "a") == results(tmp_path / "b")
    found = []
    for size in (1, 5, 64):
        monkeypatch.setattr(predict, "EVALUATION_BATCH", size)
        model, examples = fresh(slots, inputs)
        fit_inputs(model, examples, examples.split(0, "train")[:: 1 if size > 1 else -1])
        found.append(model.inputs.state_dict())
    saved = load_file(tmp_path / "a" / "model.safetensors")
    for state in found[1:]:
        for name, value in state.items():
            assert torch.equal(value, saved[f"inputs.{name}"])
    # The order of rows of one length is that of the split: it may change the last digit in float64.
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-6, atol=1e-7)


def fresh(
    slots: dict[str, Path], inputs: dict[str, Any] | None = None
) -> tuple[PreparedFusion, Examples]:
    examples = join(slots, labels_of(), CLASSES)
    torch.manual_seed(0)
    model = make_model("concat", {"d_model": 8}, examples.specs, 3, inputs=inputs or ON)
    assert isinstance(model, PreparedFusion)
    return model, examples


def test_statistics_that_are_there_stay(slots: dict[str, Path]) -> None:
    """Those of a training that is resumed, and of an earlier run that tuning begins with."""
    model, examples = fresh(slots)
    (scale,) = model.inputs.open.values()
    scale.fit(Moments(1, np.full(6, 7.0), np.full(6, 4.0)))
    fit_inputs(model, examples, examples.split(0, "train"))
    assert torch.equal(scale.mean, torch.full((6,), 7.0))
    assert torch.equal(scale.std, torch.full((6,), 2.0))


def test_nothing_is_read_and_no_number_drawn_without_need(slots: dict[str, Path]) -> None:
    model, examples = fresh(slots)
    state = torch.get_rng_state()
    fit_inputs(model, examples, examples.split(0, "train"))
    assert torch.equal(state, torch.get_rng_state())
    plain = make_model("concat", {"d_model": 8}, examples.specs, 3)
    for each in (model, plain):
        fit_inputs(each, None, [])  # type: ignore[arg-type]


@both
def test_a_stack_is_measured_as_the_mean_of_its_layers(inputs: dict[str, Any]) -> None:
    specs = {"speech": StreamSpec(6, layers=2)}
    layers = InputLayers(specs, InputSettings.of({"mix_layers": True, **inputs}))
    stream = Stream.pad([torch.randn(n, 6) for n in (3, 1)])
    first, second = layers.moments({"speech": stream})["speech"]
    frames = torch.cat(stream.unpad()).double().numpy()
    layers.open["speech"].fit(first + second)
    expected = (frames[:, :3] + frames[:, 3:]) / 2
    scale = layers.scales["speech"]
    assert isinstance(scale, Standardize)
    assert np.allclose(scale.mean, expected.mean(0), atol=1e-6)
    assert np.allclose(scale.std, expected.std(0), atol=1e-6)


SECONDS = [0.3, 0.9, 0.5, 0.31, 0.7, 0.4]


@both
def test_live_equals_cached(
    tmp_path: Path, private_store: Path, make_manifest: ManifestMaker, inputs: dict[str, Any]
) -> None:
    """Statistics are those of the pretrained backbones' features: the frozen start."""
    manifest, entry = make_manifest(SECONDS), entry_of("hubert_group", tmp_path)
    live = live_of(manifest, {"speech": entry.build()})
    cached = cached_of(manifest, {"speech": entry}, tmp_path, private_store, "float32")
    fusions: list[FusionModel] = []
    for _ in range(2):
        torch.manual_seed(0)
        fusions.append(make_model("concat", {"d_model": 8}, live.specs, len(TWO), inputs=inputs))
    model = EndToEnd(fusions[0], live.backbones, TuneParams()).train()
    fit_inputs(model, live, live.labels)
    fit_inputs(fusions[1], cached, live.labels)
    for name, value in fusions[0].state_dict().items():
        assert torch.allclose(value, fusions[1].state_dict()[name], atol=1e-5), name
    found = logits(model, live.batch(live.labels))
    assert torch.allclose(found, logits(fusions[1], cached.batch(live.labels)), atol=1e-4)


def test_end_to_end_it_is_in_the_saved_fusion_and_survives_an_interruption(
    tmp_path: Path, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, entry = make_manifest([*SECONDS, 0.6, 0.5]), entry_of("hubert_group", tmp_path)
    labels = live_labels(manifest, ("train", "train", "valid", "test"))
    live = live_of(manifest, {"speech": entry.build()}, Examples({}, labels, TWO, {}), batch_size=2)

    def tuning(out: str) -> TuneJob:
        job = live_job(labels, TrainParams(epochs=2, batch_size=2, lr=1e-2), tmp_path / out)
        job = dataclasses.replace(job, inputs=WHITE, kept=tmp_path / "kept" / out)
        return TuneJob(job, {"speech": entry}, live, TuneParams(save_seconds=1e-9), "tones")

    run_tune_job(tuning("whole"))
    evaluate = predict.in_parts

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.training.loop.evaluate", killed)  # behind the first epoch's steps
    with pytest.raises(KeyboardInterrupt):
        run_tune_job(tuning("again"))
    monkeypatch.undo()
    measured: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(InputLayers, "moments", lambda *_: measured.append(1))
        run_tune_job(tuning("again"))
    assert not measured
    assert predict.in_parts is evaluate
    assert results(tmp_path / "again") == results(tmp_path / "whole")
    fusion, _ = load_model(tmp_path / "whole")
    assert isinstance(fusion, PreparedFusion)
    scale = fusion.inputs.scales["speech"]
    assert isinstance(scale, Whiten)
    assert scale.fitted
    assert not torch.equal(scale.std, torch.ones_like(scale.std))
    assert not torch.equal(scale.matrix, torch.eye(len(scale.std)))
