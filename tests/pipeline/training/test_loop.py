"""Training learns, repeats itself to the byte, and never sees the test split."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.errors import CacheError, HeronryError, ParamsError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import write_json, write_rows
from features.stream import StreamSpec
from pipeline.cached.run import _varying, run_job, train_model
from pipeline.data.batching import shuffled_batches
from pipeline.data.examples import Examples, join
from pipeline.fusion.concat import Concat
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch, Prediction
from pipeline.model.checkpoint import load_model, make_model
from pipeline.params.file import Params
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from pipeline.runtime.pool import run_jobs
from pipeline.training import loop
from pipeline.training.predict import evaluate
from pipeline.training.sampling import sampler_weights

CLASSES = ["calm", "angry", "sad"]
DIM = 6
SPLITS = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2


def labels_of(count: int = 90, folds: int = 1) -> list[Label]:
    return [
        Label(
            id=f"u{i}",
            label=CLASSES[i % 3],
            speaker=f"s{i % 10}",
            splits=tuple(SPLITS[(i + fold) % 10] for fold in range(folds)),
        )
        for i in range(count)
    ]


def write_cache(
    folder: Path, labels: Sequence[Label], signal: float, seed: int, frames: int | None = None
) -> None:
    """Frames whose mean points to the class, as strongly as `signal` says; by default 1 to 8."""
    generator = np.random.default_rng(seed)
    writer = CacheWriter(spec=StreamSpec(DIM), provenance={"kind": "test"}, dtype="float32")
    rows = []
    for label in labels:
        values = generator.normal(size=(frames or generator.integers(1, 9), DIM))
        values[:, CLASSES.index(label.class_name)] += signal
        rows.append(writer.round(label.id, "c", values.astype(np.float32)))
    half = len(rows) // 2
    writer.write(folder / shard_name(0), rows[:half])
    writer.write(folder / shard_name(1), rows[half:])


@pytest.fixture
def slots(tmp_path: Path) -> dict[str, Path]:
    folders = {"text": tmp_path / "text", "speech": tmp_path / "speech"}
    for number, folder in enumerate(folders.values()):
        write_cache(folder, labels_of(), 3.0, number)
    return folders


def job_of(slots: dict[str, Path], out: Path, seed: int = 0, **train: Any) -> Job:
    params = TrainParams(**({"epochs": 4, "lr": 1e-2, "batch_size": 8, "accumulate": 2} | train))
    args = {"d_model": 16}
    return Job(
        "test", "concat", args, slots, labels_of(), CLASSES, params, seed, 0, out, device="cpu"
    )


def results(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_learns_and_writes_what_the_design_says(slots: dict[str, Path], tmp_path: Path) -> None:
    run_job(job_of(slots, tmp_path / "run"))
    with (tmp_path / "run" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"valid", "test"}
    right = [row["label"] == row["prediction"] for row in rows]
    assert np.mean(right) > 0.9
    for row in rows:
        shares = [float(row[f"p_{name}"]) for name in CLASSES]
        assert sum(shares) == pytest.approx(1)
        assert row["prediction"] == CLASSES[int(np.argmax(shares))]
    with (tmp_path / "run" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert sum(row["best"] == "1" for row in history) == 1
    scores = [float(row["valid_weighted_f1"]) for row in history]
    assert history[int(np.argmax(scores))]["best"] == "1"


def test_the_lowest_validation_loss_may_choose_the_epoch(
    slots: dict[str, Path], tmp_path: Path
) -> None:
    """And patience counts from it."""
    job = job_of(slots, tmp_path / "run", monitor="loss", patience=3, epochs=60, lr=3e-2)
    lines: list[str] = []
    run_job(job, lambda text, **_: lines.append(text))
    with (tmp_path / "run" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    losses = [float(row["valid_loss"]) for row in history]
    (kept,) = (number for number, row in enumerate(history) if row["best"] == "1")
    assert kept == int(np.argmin(losses))
    assert len(history) == kept + 1 + 3 < 60
    assert f"kept epoch {kept + 1}, loss {losses[kept]:.3f}" in lines[-1]


def test_the_last_epoch_may_be_kept_whatever_the_validation_split_says(
    slots: dict[str, Path], tmp_path: Path
) -> None:
    run_job(job_of(slots, tmp_path / "run", monitor="last", patience=1, epochs=6, lr=3e-2))
    with (tmp_path / "run" / "history.csv").open() as file:
        assert [row["best"] for row in csv.DictReader(file)] == ["0"] * 5 + ["1"]


def test_saved_model_is_the_kept_epochs(slots: dict[str, Path], tmp_path: Path) -> None:
    run_job(job_of(slots, tmp_path / "run"))
    model, classes = load_model(tmp_path / "run")
    examples = join(slots, labels_of(), classes)
    scored = evaluate(model, examples, examples.split(0, "valid"))
    with (tmp_path / "run" / "history.csv").open() as file:
        kept = next(row for row in csv.DictReader(file) if row["best"] == "1")
    assert scored.loss == pytest.approx(float(kept["valid_loss"]), rel=1e-6)


def test_same_bytes_again_and_other_bytes_for_another_seed(
    slots: dict[str, Path], tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_job(job_of(slots, tmp_path / name, seed))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    first, other = results(tmp_path / "a"), results(tmp_path / "c")
    assert first["model.safetensors"] != other["model.safetensors"]


@pytest.mark.slow
def test_seed_gives_the_same_bytes_alone_and_in_company(
    slots: dict[str, Path], tmp_path: Path
) -> None:
    jobs = [job_of(slots, tmp_path / "company" / str(seed), seed) for seed in range(3)]
    assert len(list(run_jobs(run_job, jobs, workers=2))) == 3
    threads = torch.get_num_threads()
    for seed in range(3):
        list(run_jobs(run_job, [job_of(slots, tmp_path / "alone" / str(seed), seed)], workers=1))
    assert results(tmp_path / "company") == results(tmp_path / "alone")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("loss", ["ce", "weighted_ce", "focal"])
def test_accumulation_equals_one_larger_batch(slots: dict[str, Path], loss: Any) -> None:
    """Without dropout, k batches of n accumulated are one batch of k n."""
    states, losses = [], []
    for size, accumulate in ((8, 3), (24, 1)):
        torch.manual_seed(0)
        examples = join(slots, labels_of(), CLASSES)
        model = make_model("concat", {"d_model": 8, "dropout": 0.0}, examples.specs, 3)
        train = examples.split(0, "train")
        train = [*train[:3], *(label for label in train[3:] if label.label != "sad")][:24]
        params = TrainParams(
            epochs=1, batch_size=size, accumulate=accumulate, lr=1e-2, loss=loss, clip_norm=1e9
        )
        running = loop.begin(model, examples, train, params, seed=0)
        # Adam's first step is a sign, whatever the size of the gradient.
        running.optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        losses.append(loop.train_epoch(running, examples, train, params))
        states.append(model.state_dict())
    assert losses[0] == pytest.approx(losses[1])
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-6)


def test_every_utterance_once_an_epoch(slots: dict[str, Path]) -> None:
    examples = join(slots, labels_of(), CLASSES)
    generator = np.random.default_rng(0)
    orders = []
    for _ in range(2):
        batches = list(shuffled_batches(examples, examples.labels, 7, generator))
        ids = [id for batch in batches for id in batch.ids]
        assert sorted(ids) == sorted(label.id for label in examples.labels)
        orders.append(ids)
    assert orders[0] != orders[1]


class Turns(FusionModel):
    """Over dialogues: each turn by itself."""

    unit = "dialogue"

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(DIM, len(CLASSES))

    def forward(self, batch: Batch) -> Prediction:
        return Prediction(self.linear(batch.streams["speech"].values))

    def loss(self, prediction: Prediction, batch: Batch) -> torch.Tensor:
        assert batch.labels is not None
        scored = batch.labels >= 0
        loss: torch.Tensor = self.criterion(prediction.logits[scored], batch.labels[scored])
        return loss


@pytest.fixture
def dialogues(tmp_path: Path) -> Examples:
    """Thirty dialogues of one to five turns, one frame a turn."""
    labels = [
        dataclasses.replace(label, dialogue=f"d{(i * i) % 31}", turn=i, splits=("train", "valid"))
        for i, label in enumerate(labels_of())
    ]
    generator = np.random.default_rng(0)
    writer = CacheWriter(spec=StreamSpec(DIM), provenance={"kind": "test"}, dtype="float32")
    rows = []
    for label in labels:
        frames = generator.normal(size=(1, DIM))
        frames[:, CLASSES.index(label.class_name)] += 6
        rows.append(writer.round(label.id, "c", frames.astype(np.float32)))
    writer.write(tmp_path / "pooled" / shard_name(0), rows)
    return join({"speech": tmp_path / "pooled"}, labels, CLASSES)


@pytest.mark.parametrize("loss", ["ce", "weighted_ce"])
def test_dialogues_are_scored_turn_by_turn(dialogues: Examples, loss: Any) -> None:
    torch.manual_seed(0)
    model, labels = Turns(), dialogues.labels
    params = TrainParams(epochs=5, lr=5e-2, loss=loss, schedule="cosine")
    fitted = loop.fit(model, dialogues, train=labels, valid=labels, params=params, seed=0)
    assert fitted.history[-1].scores["accuracy"] > 0.95
    steps = 5 * math.ceil(len({label.dialogue for label in labels}) / 8)
    running = loop.begin(model, dialogues, labels, params, seed=0)
    assert running.schedule.steps == steps
    loop.train_epoch(running, dialogues, labels, params)
    assert running.schedule.step == steps / 5

    scored = evaluate(model, dialogues, labels)
    frames = np.stack([dialogues.readers["speech"][label.id][0] for label in labels])
    with torch.inference_mode():
        logits = model.linear(torch.from_numpy(frames))
    assert np.allclose(scored.probabilities, logits.double().softmax(1), atol=1e-6)
    truth = torch.tensor([CLASSES.index(label.class_name) for label in labels])
    assert scored.loss == pytest.approx(float(model.criterion(logits, truth)), rel=1e-5)


@pytest.mark.parametrize("setting", [{"sampler": "balanced"}, {"seqaug": 0.5}, {"mixup": 0.2}])
def test_dialogues_refuse_what_is_for_utterances(
    dialogues: Examples, setting: dict[str, Any]
) -> None:
    params = TrainParams(**setting)
    with pytest.raises(ParamsError, match=rf"train.{next(iter(setting))}: .* over dialogues"):
        loop.begin(Turns(), dialogues, dialogues.labels, params, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "train",
    [
        {"loss": "weighted_focal", "label_smoothing": 0.1, "sampler": "to_uniform"},
        {"loss": "weighted_ce", "schedule": "cosine", "warmup_steps": 5, "lr_start": 1e-4},
        {"mixup": 0.4, "seqaug": 0.5, "sampler": "balanced", "epochs": 12},
        {"optimizer": "adam", "betas": [0.9, 0.98], "sampler": "to_distribution", "mixup": 1.0},
    ],
)
def test_learns_by_any_protocol_and_repeats_it(
    slots: dict[str, Path], tmp_path: Path, train: dict[str, Any]
) -> None:
    for name in ("a", "b"):
        run_job(job_of(slots, tmp_path / name, **train))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    with (tmp_path / "a" / "predictions.csv").open() as file:
        right = [row["label"] == row["prediction"] for row in csv.DictReader(file)]
    assert np.mean(right) > 0.9


def test_history_has_the_rate_of_each_epochs_first_step(
    slots: dict[str, Path], tmp_path: Path
) -> None:
    """54 utterances, 7 batches of 8, 4 steps of 2 batches an epoch."""
    warm: dict[str, Any] = {
        "warmup_steps": 4,
        "lr_start": 1e-4,
        "lr_end": 1e-3,
        "schedule": "cosine",
    }
    run_job(job_of(slots, tmp_path / "run", **warm))
    with (tmp_path / "run" / "history.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    cosine = [1e-3 + 9e-3 * (1 + np.cos(np.pi * step / 11)) / 2 for step in (0, 4, 8)]
    assert rates == pytest.approx([1e-4, *cosine])


def test_history_shows_the_plateau_that_was_set(slots: dict[str, Path], tmp_path: Path) -> None:
    """Each epoch without a lower validation loss is followed by a tenth of its rate."""
    settings: dict[str, Any] = {"plateau_factor": 0.1, "plateau_patience": 0, "lr": 0.3}
    run_job(job_of(slots, tmp_path / "run", epochs=6, patience=6, **settings))
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = [(float(row["lr"]), float(row["valid_loss"])) for row in csv.DictReader(file)]
    expected, best = [0.3], np.inf
    for _, loss in rows[:-1]:
        expected.append(expected[-1] * (1.0 if loss < best * (1 - 1e-4) else 0.1))
        best = min(best, loss)
    assert [rate for rate, _ in rows] == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_samplers_get_how_many_epochs_are_done(
    slots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def spy(*args: Any, done: int, epochs: int) -> Any:
        calls.append((done, epochs))
        return sampler_weights(*args, done=done, epochs=epochs)

    monkeypatch.setattr(loop, "sampler_weights", spy)
    run_job(job_of(slots, tmp_path / "run", sampler="to_distribution"))
    assert calls == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_training_changes_nothing_of_the_process(slots: dict[str, Path], tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run_job(job_of(slots, tmp_path / "run", epochs=1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `concat` use an operation that has no deterministic algorithm anywhere."""

    def loss(*given: Any) -> Tensor:
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        return FusionModel.loss(*given)

    monkeypatch.setattr(Concat, "loss", loss)


def test_operations_without_a_deterministic_algorithm_are_refused_on_a_cpu(
    slots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vary(monkeypatch)
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic"):
        run_job(job_of(slots, tmp_path / "run", epochs=1))


@pytest.mark.gpu
def test_operations_without_a_deterministic_algorithm_are_named_on_a_gpu(
    slots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def show(text: str, *, done: bool = False) -> None:
        said.append(f"{text} ({done})")

    job = dataclasses.replace(job_of(slots, tmp_path / "run", epochs=1), device="cuda:0")
    run_job(job, show)
    expected = (job.out / "predictions.csv").read_bytes()
    assert "deterministic" not in "".join(said)
    vary(monkeypatch)
    with pytest.warns(UserWarning, match="put_ does not have a deterministic"):
        run_job(job, show)
    assert any("put_ has no deterministic algorithm on cuda:0" in line for line in said)
    assert (job.out / "predictions.csv").read_bytes() == expected


def test_errors_about_determinism() -> None:
    assert (
        _varying("cumsum_cuda does not have a deterministic implementation, but") == "cumsum_cuda"
    )
    cublas = "this operation is not deterministic because it uses CuBLAS and you have CUDA >= 10.2"
    assert "CUBLAS_WORKSPACE_CONFIG" in (_varying(cublas) or "")
    assert _varying("CUDA error: an illegal memory access was encountered") is None


def test_stops_early_and_lowers_the_rate(slots: dict[str, Path]) -> None:
    torch.manual_seed(0)
    examples = join(slots, labels_of(), CLASSES)
    model = make_model("concat", {"d_model": 8}, examples.specs, 3)
    params = TrainParams(epochs=200, patience=7, lr=5e-2)
    train, valid = examples.split(0, "train"), examples.split(0, "valid")
    fitted = loop.fit(model, examples, train=train, valid=valid, params=params, seed=0)
    assert len(fitted.history) == fitted.best + 7 < 200
    rates = [epoch.lr for epoch in fitted.history]
    assert rates[0] == 5e-2
    assert set(np.round(np.log2(np.array(rates) / 5e-2), 9)) <= set(range(-20, 1))


def test_the_test_split_is_no_argument_of_fit() -> None:
    assert "test" not in inspect.signature(loop.fit).parameters


def test_infinite_loss_names_the_utterances(slots: dict[str, Path]) -> None:
    examples = join(slots, labels_of(), CLASSES)
    model = make_model("concat", {"d_model": 8}, examples.specs, 3)
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    train, valid = examples.split(0, "train"), examples.split(0, "valid")
    with pytest.raises(HeronryError, match=r"loss is nan .*'u\d"):
        loop.fit(model, examples, train=train, valid=valid, params=TrainParams(), seed=0)


def test_what_a_slot_lacks_is_left_out_for_all(tmp_path: Path) -> None:
    labels = labels_of()
    write_cache(tmp_path / "text", labels, 1.0, 0)
    write_cache(tmp_path / "speech", labels[:-4], 1.0, 1)
    with pytest.raises(CacheError, match=r"neither holds utterance 'u86'.*a shard is missing"):
        join({"speech": tmp_path / "speech"}, labels, CLASSES)
    write_reasons(tmp_path / "speech" / REJECTED, {label.id: "bad" for label in labels[-4:]})
    slots = {"text": tmp_path / "text", "speech": tmp_path / "speech"}
    examples = join(slots, labels, CLASSES)
    assert list(examples.dropped) == [label.id for label in labels[-4:]]
    assert list(examples.dropped.values()) == [{"speech": "bad"}] * 4
    assert len(examples.labels) == len(labels) - 4


def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: int = 1) -> Params:
    """A folder as `prepare` and `extract` leave it, current."""
    monkeypatch.chdir(tmp_path)
    labels = labels_of(folds=folds)
    folder = tmp_path / "data" / "c" / "labels"
    folder.mkdir(parents=True)
    write_rows(folder / "labels.jsonl", labels)
    write_json(folder / "card.json", {"classes": CLASSES, "folds": folds})
    write_cache(tmp_path / "cache" / "c" / "tone", labels, 3.0, 0)
    model = {
        "kind": "concat",
        "speech": "tone",
        "seeds": 2,
        "args": {"d_model": 8},
        "train": {"epochs": 2},
    }
    backbones: dict[str, dict[str, int]] = {"tone": {}, "none": {}}
    return Params("m", "cached", "c", None, {}, {"c": {}}, backbones, {"m": model})


def test_train_stage_runs_all_seeds_and_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = project(tmp_path, monkeypatch, folds=2)
    out = train_model(params, "m", "c", device="cpu", workers=1)
    found = sorted(p.parent.relative_to(out).as_posix() for p in out.rglob("predictions.csv"))
    assert found == [f"seed_{s}/fold_{f}" for s in range(2) for f in range(2)]
    run = json.loads((out / "run.json").read_text())
    assert (run["seeds"], run["folds"], run["fusion"]) == ([0, 1], 2, "m")
    assert run["slots"]["speech"]["provenance"] == {"kind": "test"}
    assert run["slots"]["text"] is None
    assert run["parameters"] == DIM * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3
    assert run["train"]["epochs"] == 2


def test_empty_split_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = project(tmp_path, monkeypatch)
    labels = [dataclasses.replace(label, splits=("train",)) for label in labels_of()]
    write_rows(tmp_path / "data" / "c" / "labels" / "labels.jsonl", labels)
    with pytest.raises(CacheError, match="no utterance of split 'valid', fold 0"):
        train_model(params, "m", "c", device="cpu")


def test_damaged_cache_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = project(tmp_path, monkeypatch)
    path = tmp_path / "cache" / "c" / "tone" / shard_name(1)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-3, 2)
        byte = file.read(1)
        file.seek(-3, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CacheError, match=r"shard-00001.h5 (is damaged|is no readable)"):
        train_model(params, "m", "c", device="cpu")
