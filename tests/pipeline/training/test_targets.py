"""Trainings on attributes, votes and several targets: what they learn, write, keep and refuse."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.corpus.manifest import UNLABELLED, Label
from features.errors import ParamsError
from pipeline.cached.run import run_job
from pipeline.data.examples import Examples, join
from pipeline.data.targets import TargetReader
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch, Prediction
from pipeline.model.checkpoint import load_model, make_model
from pipeline.model.losses.classes import CrossEntropy
from pipeline.model.losses.tasks import TaskLosses
from pipeline.model.outputs import GENDERS, Outputs
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job, Outcome
from pipeline.training.fitting import TooLargeError
from pipeline.training.loop import (
    BatchLoss,
    NothingToKeepError,
    Step,
    begin,
    fit,
    micro_step,
    train_epoch,
)
from pipeline.training.predict import evaluate
from pipeline.training.ranks import Ranks
from pipeline.training.state import Epoch, Progress, Training
from tests.pipeline.training.test_loop import CLASSES, labels_of, write_cache

SCALES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}
ATTRIBUTES: dict[str, Any] = {"targets": ["attributes"], "monitor": "ccc"}
VOTES: dict[str, Any] = {"targets": ["votes"], "monitor": "jsd"}
ALL: dict[str, Any] = {
    "targets": ["classes", "votes", "attributes", "gender"],
    "monitor": "joint",
    "weighting": "uncertainty",
}


def rated_of(labels: Sequence[Label]) -> list[Label]:
    """Votes and values that follow the class, with gaps; every tenth row has no class."""
    noise = np.random.default_rng(0)
    rows = []
    for number, label in enumerate(labels):
        place = CLASSES.index(label.class_name)
        votes = {label.class_name: 3.0, CLASSES[(place + 1) % 3]: 1.0} if number % 7 else None
        values = {"arousal": float(np.clip(2 + 2 * place + noise.normal(0, 0.3), 1, 7))}
        if number % 5:
            values["valence"] = float(np.clip(place - 1 + noise.normal(0, 0.1), -1, 1))
        known = label.class_name if number % 10 else None
        rows.append(
            dataclasses.replace(
                label,
                label=known,
                votes=votes,
                values=values,
                gender=("female", "male", None)[number % 3],
            )
        )
    return rows


RATED = rated_of(labels_of())


def reader_of(targets: Sequence[Any], **settings: Any) -> TargetReader:
    learnt = set(targets)
    attributes = tuple(SCALES) if "attributes" in learnt else ()
    return TargetReader(
        tuple(targets),
        Outputs(
            tuple(CLASSES) if learnt & {"classes", "votes"} else (),
            attributes,
            GENDERS if "gender" in learnt else (),
            {name: SCALES[name] for name in attributes},
            binary=settings.pop("binary", False),
        ),
        **settings,
    )


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("caches")
    write_cache(folder / "text", labels_of(), 3.0, 0)
    write_cache(folder / "speech", labels_of(), 3.0, 1)
    return {"text": folder / "text", "speech": folder / "speech"}


def job_of(slots: dict[str, Path], out: Path, labels: Sequence[Label], **train: Any) -> Job:
    params = TrainParams(**({"epochs": 8, "lr": 1e-2, "batch_size": 16} | train))
    reader = reader_of(params.targets, binary=params.vote_loss == "multilabel_bce")
    used = [each for each in labels if reader.learns_from(each) or UNLABELLED in each.splits]
    return Job(
        *("test", "concat", {"d_model": 16}, slots, used, reader.outputs.classes, params),
        *(0, 0, out),
        device="cpu",
        targets=reader,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def numbers(rows: Sequence[dict[str, str]], name: str) -> list[float]:
    return [float(row[name] or "nan") for row in rows]


def examples_of(
    slots: dict[str, Path], targets: Sequence[Any], labels: Sequence[Label]
) -> Examples:
    reader = reader_of(targets)
    used = [label for label in labels if reader.learns_from(label)]
    found = join(slots, used, list(reader.outputs.classes), verify=False)
    return dataclasses.replace(found, targets=reader)


def model_of(examples: Examples) -> FusionModel:
    torch.manual_seed(0)
    assert examples.targets is not None
    return make_model("concat", {"d_model": 8}, examples.specs, examples.targets.outputs.width)


@pytest.fixture(scope="module")
def learnt(slots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder by target."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, train in (("attributes", ATTRIBUTES), ("votes", VOTES), ("all", ALL)):
        found[name] = folder / name
        run_job(job_of(slots, folder / name, RATED, **train))
    return found


def test_attributes_are_learnt_and_written_on_the_corpus_scale(learnt: dict[str, Path]) -> None:
    rows = table(learnt["attributes"] / "predictions.csv")
    truth = {label.id: label.values or {} for label in RATED}
    for name, (low, high) in SCALES.items():
        y, v = np.array(numbers(rows, f"y_{name}")), np.array(numbers(rows, f"v_{name}"))
        expected = [truth[row["id"]].get(name, math.nan) for row in rows]
        assert np.allclose(y, expected, equal_nan=True)
        assert ((v >= low) & (v <= high)).all()
        known = ~np.isnan(y)
        assert np.corrcoef(y[known], v[known])[0, 1] > 0.8
    assert {row["label"] + row["prediction"] for row in rows} == {""}
    assert len(rows) == sum(label.splits[0] in ("valid", "test") for label in RATED)


def test_votes_are_learnt_beside_their_truth(learnt: dict[str, Path]) -> None:
    rows = table(learnt["votes"] / "predictions.csv")
    assert all(row["prediction"] in CLASSES for row in rows)
    by_id = {label.id: label for label in RATED}
    for row in rows:
        label = by_id[row["id"]]
        assert row["label"] == (label.label or "")
        assert sum(float(row[f"p_{name}"]) for name in CLASSES) == pytest.approx(1)
        votes = label.votes or {}
        assert [float(row[f"t_{name}"]) * 4 for name in CLASSES] == [
            votes.get(name, 0.0) for name in CLASSES
        ]
    history = table(learnt["votes"] / "history.csv")
    kept = next(row for row in history if row["best"] == "1")
    assert float(kept["valid_jsd"]) == min(numbers(history, "valid_jsd"))


def test_history_has_each_target_and_keeps_the_best_monitor(learnt: dict[str, Path]) -> None:
    history = table(learnt["all"] / "history.csv")
    kept = next(row for row in history if row["best"] == "1")
    assert float(kept["valid_joint"]) == max(numbers(history, "valid_joint"))
    for row in history:
        found = {name: float(value) for name, value in row.items()}
        assert found["valid_joint"] == pytest.approx(
            (found["valid_ccc"] + found["valid_macro_f1"]) / 2
        )
        each = (found["valid_ccc_arousal"] + found["valid_ccc_valence"]) / 2
        assert found["valid_ccc"] == pytest.approx(each)
    for task in ("classes", "votes", "attributes", "gender"):
        assert all(map(math.isfinite, numbers(history, f"train_{task}_loss")))
    first, last = history[0], history[-1]
    for task in ("classes", "votes", "attributes"):
        assert float(last[f"valid_{task}_loss"]) < float(first[f"valid_{task}_loss"])
    conditions = table(learnt["all"] / "conditions.csv")
    assert all(row["v_arousal"] and row["p_calm"] for row in conditions)


def test_valid_loss_is_that_of_the_whole_split(slots: dict[str, Path]) -> None:
    """Not a mean over batches, which is another number for 1 - CCC."""
    examples = examples_of(slots, ["attributes"], RATED)
    model, valid = model_of(examples), examples.split(0, "valid")
    params = TrainParams(**ATTRIBUTES, batch_size=16)
    begin(model, examples, examples.split(0, "train"), params, seed=0)
    found = evaluate(model, examples, valid)
    batch = examples.batch(valid)
    assert found.loss == pytest.approx(float(model.loss(model.eval()(batch), batch).detach()))
    halves = [evaluate(model, examples, part).loss for part in (valid[:9], valid[9:])]
    assert found.loss != pytest.approx(np.mean(halves), rel=1e-3)


def test_batches_without_enough_targets_change_nothing(slots: dict[str, Path]) -> None:
    """One known value in a whole split is no spread: no step is made, and they are counted."""
    labels = [
        dataclasses.replace(label, values={"arousal": 4.0} if number == 1 else None)
        for number, label in enumerate(RATED)
        if label.label is not None
    ]
    examples = dataclasses.replace(examples_of(slots, ["attributes"], RATED), labels=labels)
    model, train = model_of(examples), examples.split(0, "train")
    params = TrainParams(**ATTRIBUTES, batch_size=16, weight_decay=0.5)
    training = begin(model, examples, train, params, seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    assert math.isnan(train_epoch(training, examples, train, params))
    assert training.skipped == -(-len(train) // 16)
    assert training.schedule.step == 0
    assert all(map(torch.equal, before, model.parameters()))


def test_an_undefined_monitor_never_counts_as_better(slots: dict[str, Path]) -> None:
    training = Training(torch.nn.Linear(1, 1), None, None, np.random.default_rng(0))  # type: ignore[arg-type]
    for number, score in enumerate([math.nan, 0.2, math.nan, 0.1], 1):
        training.add(Epoch(number, 1.0, 0.0, 0.0, {"ccc": score}), "ccc")
    assert training.best == 2
    falling = Training(torch.nn.Linear(1, 1), None, None, np.random.default_rng(0))  # type: ignore[arg-type]
    for number, score in enumerate([0.5, 0.2, 0.3], 1):
        falling.add(Epoch(number, 1.0, 0.0, 0.0, {"jsd": score}), "jsd")
    assert falling.best == 2
    examples = examples_of(slots, ["attributes"], RATED)
    valid = [dataclasses.replace(v, values={"arousal": 2.0}) for v in examples.split(0, "valid")]
    params = TrainParams(**ATTRIBUTES, batch_size=16, epochs=2)
    train = examples.split(0, "train")
    with pytest.raises(NothingToKeepError, match=r"monitor: 'ccc' is defined in none of 2 epochs"):
        fit(model_of(examples), examples, train=train, valid=valid, params=params, seed=0)


def test_factors_of_losses_are_trained_and_stay_out_of_the_model(
    slots: dict[str, Path], learnt: dict[str, Path]
) -> None:
    examples = examples_of(slots, ALL["targets"], RATED)
    model, train = model_of(examples), examples.split(0, "train")
    params = TrainParams(**ALL, batch_size=16, lr=0.01)
    training = begin(model, examples, train, params, seed=0)
    assert training.optimizer.param_groups[-1]["weight_decay"] == 0.0
    train_epoch(training, examples, train, params)
    criterion = model.criterion
    assert isinstance(criterion, TaskLosses)
    assert criterion.log_variances is not None
    assert (criterion.log_variances != 0).all()
    assert not [name for name in model.state_dict() if "criterion" in name]
    assert (learnt["all"] / "model.safetensors").exists()


@pytest.mark.parametrize("train", [ATTRIBUTES, ALL])
def test_a_run_repeats_itself_to_the_byte(
    slots: dict[str, Path], tmp_path: Path, train: dict[str, Any]
) -> None:
    for name in ("one", "two"):
        run_job(job_of(slots, tmp_path / name, RATED, **train, epochs=2))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    "train",
    [
        VOTES | {"vote_loss": "multilabel_bce", "monitor": "multilabel_f1"},
        VOTES | {"vote_loss": "balanced_soft_ce", "mixup": 0.4},
        VOTES | {"vote_loss": "logit_adjusted", "label_smoothing": 0.1},
        ATTRIBUTES | {"attribute_loss": "huber", "mixup": 0.4, "seqaug": 0.5},
        ATTRIBUTES | {"attribute_loss": "ccc_mse", "attribute_link": "sigmoid", "accumulate": 2},
        {
            "targets": ["classes", "attributes"],
            "loss": "balanced_ce",
            "task_weights": {"classes": 2},
        },
        {"targets": ["classes", "attributes"], "loss": "weighted_focal", "monitor": "ccc_arousal"},
    ],
)
def test_any_protocol_trains(slots: dict[str, Path], tmp_path: Path, train: dict[str, Any]) -> None:
    outcome = run_job(job_of(slots, tmp_path / "run", RATED, **train, epochs=2))
    assert isinstance(outcome, Outcome)
    assert outcome.skipped == 0
    losses = numbers(table(tmp_path / "run" / "history.csv"), "valid_loss")
    assert losses[1] < losses[0]
    rows = table(tmp_path / "run" / "predictions.csv")
    if train.get("vote_loss") == "multilabel_bce":
        for row in rows:
            each = np.array([float(row[f"m_{name}"]) for name in CLASSES])
            shares = [float(row[f"p_{name}"]) for name in CLASSES]
            assert shares == pytest.approx(each / each.sum(), rel=1e-6)


def test_unlabelled_rows_are_predicted_and_never_scored(
    slots: dict[str, Path], tmp_path: Path
) -> None:
    """They change nothing of the rest."""
    hidden = [label for label in RATED if label.splits == ("test",)][:4]
    ids = {label.id for label in hidden}
    shown = [label for label in RATED if label.id not in ids]
    blank = [
        Label(label.id, None, label.speaker, splits=(UNLABELLED,)) if label.id in ids else label
        for label in RATED
    ]
    for name, labels in (("with", blank), ("without", shown)):
        run_job(job_of(slots, tmp_path / name, labels, **ALL, epochs=2))
    rows = table(tmp_path / "with" / "unlabelled.csv")
    assert {row["id"] for row in rows} == ids
    assert {row["split"] for row in rows} == {UNLABELLED}
    for row in rows:
        assert row["prediction"] in CLASSES
        assert row["v_arousal"]
        assert {row["label"], row["y_arousal"], row["t_calm"]} == {""}
    for name in ("predictions.csv", "history.csv", "model.safetensors"):
        one, other = (tmp_path / each / name for each in ("with", "without"))
        assert one.read_bytes() == other.read_bytes(), name
    assert not (tmp_path / "without" / "unlabelled.csv").exists()


@pytest.mark.parametrize("kind", ["concat", "lpgnet"])
def test_models_of_classes_alone_predict_unlabelled_rows_too(tmp_path: Path, kind: str) -> None:
    """Of dialogues as well, where a turn without a class is no padding."""
    labels = [
        dataclasses.replace(
            label,
            dialogue=f"d{number // 5}",
            turn=number,
            splits=(("train", "train", "valid", "test", UNLABELLED)[number // 5 % 5],),
        )
        for number, label in enumerate(labels_of())
    ]
    for number, slot in enumerate(("text", "speech")):
        write_cache(tmp_path / slot, labels, 3.0, number, frames=1)
    hidden = [
        dataclasses.replace(label, label=None) if UNLABELLED in label.splits else label
        for label in labels
    ]
    params, folders = TrainParams(epochs=2), {slot: tmp_path / slot for slot in ("text", "speech")}
    args = {"d_model": 8}
    job = Job("t", kind, args, folders, hidden, CLASSES, params, 0, 0, tmp_path / "run", "cpu")
    run_job(job)
    rows = table(tmp_path / "run" / "unlabelled.csv")
    assert {row["id"] for row in rows} == {label.id for label in hidden if label.label is None}
    assert {row["label"] for row in rows} == {""}
    # The same model on rows that have a class, in dialogues of the same turns.
    model, classes = load_model(tmp_path / "run")
    model.criterion = CrossEntropy()
    known = join(folders, labels, classes)
    found = evaluate(model, known, known.split(0, UNLABELLED)).probabilities
    by_id = {row["id"]: [float(row[f"p_{name}"]) for name in CLASSES] for row in rows}
    for label, expected in zip(known.split(0, UNLABELLED), found, strict=True):
        assert by_id[label.id] == pytest.approx(expected, abs=1e-6)


def test_small_batches_of_an_uncut_loss_are_refused(slots: dict[str, Path]) -> None:
    examples = examples_of(slots, ["attributes"], RATED)
    train = examples.split(0, "train")
    params = TrainParams(**ATTRIBUTES, batch_size=4)
    with pytest.raises(ParamsError, match=r"batch_size: 4 .*at least 8 .*attribute_loss: mse"):
        begin(model_of(examples), examples, train, params, seed=0)
    begin(
        *(model_of(examples), examples, train),
        TrainParams(**ATTRIBUTES, batch_size=4, attribute_loss="mse"),
        seed=0,
    )


@pytest.mark.parametrize(
    "train",
    [
        {"targets": ("classes", "attributes"), "loss": "balanced_ce"},
        {"targets": ("classes", "attributes"), "loss": "logit_adjusted_ce"},
        VOTES | {"vote_loss": "balanced_soft_ce"},
        VOTES | {"vote_loss": "weighted"},
        VOTES | {"vote_loss": "logit_adjusted"},
    ],
)
def test_weights_of_a_class_that_is_not_there_are_refused(
    slots: dict[str, Path], train: dict[str, Any]
) -> None:
    examples = examples_of(slots, train["targets"], RATED)
    without = [
        dataclasses.replace(label, label="calm", votes={"calm": 1.0, "sad": 1.0})
        for label in examples.split(0, "train")
    ]
    params = TrainParams(**train, batch_size=16)
    with pytest.raises(ParamsError, match=r"which has nothing of \[.*'angry'.*\]; expected"):
        begin(model_of(examples), examples, without, params, seed=0)


class Lengths(Progress):
    """Notices how much the lengths of a batch's rows differ."""

    def __init__(self, examples: Examples) -> None:
        ids = [label.id for label in examples.labels]
        self.lengths = dict(zip(ids, examples.lengths(examples.labels), strict=True))
        self.spreads: list[float] = []

    def advance(self, ids: tuple[str, ...], loss: float | None) -> None:  # noqa: ARG002
        self.spreads.append(float(np.std([self.lengths[id] for id in ids])))


def test_batches_of_an_uncut_loss_are_not_sorted_by_length(slots: dict[str, Path]) -> None:
    """Rows of a length are alike, and a batch of them shows less of a correlation."""
    examples = examples_of(slots, ["attributes"], RATED)
    train, found = examples.split(0, "train"), []
    for loss in ("ccc", "mse"):
        noticed = Lengths(examples)
        params = TrainParams(**ATTRIBUTES, attribute_loss=loss, batch_size=16)
        training = begin(model_of(examples), examples, train, params, seed=0, progress=noticed)
        train_epoch(training, examples, train, params)
        found.append(np.mean(noticed.spreads))
    assert found[0] > 1.5 * found[1]


@dataclasses.dataclass(frozen=True)
class Two(Ranks):
    """One of two processes; what it tells the other one is noted, and the other has failed."""

    told: list[Any] = dataclasses.field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        self.told.append(value)
        return [value, False]


def test_no_process_waits_for_the_outputs_of_one_that_has_failed(
    slots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They agree after the model and before the loss, for which all must send something."""
    examples = examples_of(slots, ["attributes"], RATED)
    model, train = model_of(examples), examples.split(0, "train")
    params = TrainParams(**ATTRIBUTES, batch_size=16)
    training = begin(model, examples, train, params, seed=0)
    training.ranks = ranks = Two(2)
    batch = examples.batch(train[:16])
    assert micro_step(training, batch) == BatchLoss(0.0, 0.0)
    assert all(parameter.grad is None for parameter in model.parameters())

    def fail(_: Batch) -> Prediction:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        micro_step(training, batch)
    assert ranks.told == [True, False]
    training = begin(model, examples, train, params, seed=0)
    training.ranks, training.fitting.shared = ranks, True
    assert training.fitting.whole
    ranks.told.clear()
    step = Step(training, 1.0)
    step.add(batch)  # not tried twice: the other process has left this forward pass
    assert (ranks.told, type(step._fault)) == ([False], TooLargeError)
