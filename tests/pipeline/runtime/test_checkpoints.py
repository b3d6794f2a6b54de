"""A training that is interrupted after any epoch is resumed, and ends with the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from pipeline.cached.run import run_job
from pipeline.data.examples import Examples, join
from pipeline.model.checkpoint import make_model
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job, JobProgress
from pipeline.runtime import checkpoints
from pipeline.runtime.checkpoints import Checkpoints
from pipeline.training import loop
from pipeline.training.state import Training
from tests.pipeline.training.test_loop import CLASSES, labels_of, results, write_cache
from tests.pipeline.training.test_targets import ALL, RATED, reader_of

ALL_ON = {
    "epochs": 40,
    "patience": 40,
    "batch_size": 8,
    "accumulate": 2,
    "lr": 1e-3,
    "loss": "weighted_focal",
    "sampler": "to_uniform",
    "seqaug": 0.5,
    "mixup": 0.3,
    "schedule": "cosine",
    "warmup_steps": 9,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_cache(tmp_path / "speech", labels_of(), 0.4, 0)
    return tmp_path


@pytest.fixture(autouse=True)
def save_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", 1e9)


def job(folder: Path, out: str, **train: Any) -> Job:
    return Job(
        title="test",
        kind="concat",
        args={"d_model": 8},
        slots={"speech": folder / "speech"},
        labels=labels_of(),
        classes=CLASSES,
        params=TrainParams(**train),
        seed=3,
        fold=0,
        out=folder / out,
        device="cpu",
        kept=folder / "kept",
    )


def over_dialogues(folder: Path, out: str, **train: Any) -> Job:
    """LPGNet on pooled vectors: dropout, batch norm, and two heads that are taught by a third."""
    splits = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    labels = [
        dataclasses.replace(label, dialogue=f"d{i // 5}", turn=i, splits=(splits[i // 5 % 10],))
        for i, label in enumerate(labels_of())
    ]
    for number, slot in enumerate(("text", "speech")):
        if not (folder / slot / "pooled").exists():
            write_cache(folder / slot / "pooled", labels, 0.4, number, frames=1)
    return dataclasses.replace(
        job(folder, out, batch_size=4, **train),
        kind="lpgnet",
        args={"d_model": 8, "dropout": 0.3},
        slots={slot: folder / slot / "pooled" for slot in ("text", "speech")},
        labels=labels,
    )


def over_targets(folder: Path, out: str, **train: Any) -> Job:
    """Classes, votes, attributes and gender, whose losses have trained factors."""
    made = job(folder, out, **train)
    reader = reader_of(made.params.targets)
    used = [label for label in RATED if reader.learns_from(label)]
    return dataclasses.replace(made, labels=used, targets=reader)


def whitened(folder: Path, out: str, **train: Any) -> Job:
    """Frames whitened by statistics that are in the checkpoint, not computed again."""
    return dataclasses.replace(job(folder, out, **train), inputs={"whiten": ["speech"]})


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 4, 9])
@pytest.mark.parametrize(
    ("make", "train"),
    [
        (job, {"epochs": 9, "lr": 1e-2}),
        (job, {"epochs": 9, "lr": 5e-2, "optimizer": "adam", "patience": 3}),
        (job, ALL_ON | {"epochs": 9}),
        (over_dialogues, {"epochs": 9, "lr": 1e-2, "schedule": "cosine", "accumulate": 2}),
        (over_targets, ALL | {"epochs": 9, "lr": 1e-2, "batch_size": 16}),
        (whitened, {"epochs": 9, "lr": 1e-2}),
    ],
    ids=["plateau", "stops early", "all on", "dialogues", "targets", "whitened"],
)
def test_resumes_after_any_epoch_with_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Any, train: dict[str, Any], done: int
) -> None:
    run_job(dataclasses.replace(make(folder, "whole", **train), kept=None))
    epoch_ended = JobProgress.epoch_ended

    def killed(self: JobProgress, running: Training, *, ended: bool) -> None:
        epoch_ended(self, running, ended=ended)
        if len(running.history) == done or ended:
            raise KilledError

    monkeypatch.setattr(JobProgress, "epoch_ended", killed)
    with pytest.raises(KilledError):
        run_job(make(folder, "again", **train))
    monkeypatch.undo()
    torch.manual_seed(99)  # whatever the generators were at
    lines: list[str] = []
    run_job(make(folder, "again", **train), lambda text, **_: lines.append(text))
    assert "resumes after epoch" in lines[0]
    assert results(folder / "again") == results(folder / "whole")


def trained(folder: Path, epochs: int) -> tuple[Training, Examples]:
    examples = join({"speech": folder / "speech"}, labels_of(), CLASSES)
    torch.manual_seed(0)
    model = make_model("concat", {"d_model": 8}, examples.specs, 3)
    split, params = examples.split(0, "train"), TrainParams(epochs=9)
    running = loop.begin(model, examples, split, params, seed=0)
    for _ in range(epochs):
        loop.train_epoch(running, examples, split, params)
    return running, examples


def test_saved_state_is_all_of_it(folder: Path) -> None:
    running, _ = trained(folder, 2)
    running.best_weights = {name: v.clone() for name, v in running.model.state_dict().items()}
    assert Checkpoints(folder / "state", print).save(running)
    drawn = torch.rand(3), running.generator.random(3).tolist()
    other, _ = trained(folder, 0)
    assert Checkpoints(folder / "state", print).restore(other)
    assert torch.equal(torch.rand(3), drawn[0])
    assert other.generator.random(3).tolist() == drawn[1]
    assert other.schedule.state() == running.schedule.state()
    mine, theirs = running.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index, state in mine.items():
        assert all(torch.equal(value, theirs[index][key]) for key, value in state.items())
    for name, value in running.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\0" * 4096])
def test_unreadable_state_is_not_used(
    folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    running, _ = trained(folder, 0)
    (folder / "state").mkdir()
    (folder / "state" / "step_00000007.safetensors").write_bytes(content)
    assert not Checkpoints(folder / "state", print).restore(running)
    assert "is no half-done training" in capsys.readouterr().err
    assert not list((folder / "state").iterdir())
    assert not Checkpoints(folder / "nothing", print).restore(running)
    assert not Checkpoints(None, print).restore(running)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_full_disk_does_not_stop_a_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error("No space left on device")

    run_job(dataclasses.replace(job(folder, "whole", epochs=3), kept=None))
    monkeypatch.setattr(checkpoints, "save_file", full)
    lines: list[str] = []
    run_job(job(folder, "again", epochs=3), lambda text, **_: lines.append(text))
    assert len([line for line in lines if "No space left on device" in line]) == 1
    assert results(folder / "again") == results(folder / "whole")
    assert not list((folder / "kept").rglob("*.safetensors"))


def test_saves_seldom_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most every five seconds, and a thirtieth of the time at most."""
    monkeypatch.undo()
    running, _ = trained(folder, 0)
    clock, saves = [0.0], []

    def write(*_: Any, **__: Any) -> None:
        saves.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr("pipeline.runtime.checkpoints.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "write_state", write)
    keeper = Checkpoints(folder / "state", print)
    for _ in range(200):
        clock[0] += 0.7
        if keeper.due():
            keeper.save(running)
    assert saves[0] == pytest.approx(5.6)
    assert all(gap > 33 for gap in np.diff(saves))
    assert len(saves) > 3
