"""A training that is killed at any instant goes on, and ends with the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from features.files.records import write_rows
from pipeline.cached.run import run_job, train_model
from pipeline.data.examples import Examples, join
from pipeline.model.checkpoint import make_model
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from pipeline.runtime import resume
from pipeline.runtime.resume import Keeper, forget, run_folder
from pipeline.training import loop
from pipeline.training.state import Training
from tests.pipeline.training.test_loop import CLASSES, labels_of, project, results, write_cache
from tests.support.paths import ROOT

CHILD = """
import json, os, sys
from pathlib import Path
import torch
import pipeline.fusion.concat
import pipeline.fusion.lpgnet
from pipeline import resume
from pipeline.params.file import Params
from pipeline.cached.run import train_model

resume.SAVE_SECONDS = 0.0
resume.SAVE_SHARE = 1e9
torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)])  # imports much when it is first made

if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            request = json.loads(line)
            params, workers = Params(**request["params"]), request["workers"]
            train_model(params, "m", "c", device="cpu", workers=workers)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
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
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(resume, "SAVE_SHARE", 1e9)


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
    ],
    ids=["plateau", "stops early", "all on", "dialogues"],
)
def test_goes_on_after_any_epoch_with_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Any, train: dict[str, Any], done: int
) -> None:
    run_job(dataclasses.replace(make(folder, "whole", **train), kept=None))
    keep = Keeper.epoch_ended

    def killed(self: Keeper, running: Training, *, ended: bool) -> None:
        keep(self, running, ended=ended)
        if len(running.history) == done or ended:
            raise KilledError

    monkeypatch.setattr(Keeper, "epoch_ended", killed)
    with pytest.raises(KilledError):
        run_job(make(folder, "again", **train))
    monkeypatch.undo()
    torch.manual_seed(99)  # whatever the generators were at
    told: list[str] = []
    run_job(make(folder, "again", **train), lambda text, **_: told.append(text))
    assert "goes on after epoch" in told[0]
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
    Keeper(folder / "state").epoch_ended(running, ended=False)
    drawn = torch.rand(3), running.generator.random(3).tolist()
    other, _ = trained(folder, 0)
    assert Keeper(folder / "state").restore(other)
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
def test_unreadable_state_begins_anew(
    folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    running, _ = trained(folder, 0)
    (folder / "state").write_bytes(content)
    assert not Keeper(folder / "state").restore(running)
    assert "is no half-done training" in capsys.readouterr().err
    assert not Keeper(folder / "nothing").restore(running)
    assert not Keeper(None).restore(running)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_full_disk_does_not_stop_a_training(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error("No space left on device")

    run_job(dataclasses.replace(job(folder, "whole", epochs=3), kept=None))
    monkeypatch.setattr(resume, "save_file", full)
    run_job(job(folder, "again", epochs=3))
    assert "No space left on device" in capsys.readouterr().err
    assert results(folder / "again") == results(folder / "whole")
    assert not list((folder / "kept").iterdir())


def test_saves_seldom_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most every five seconds, and a thirtieth of the time at most."""
    monkeypatch.undo()
    running, _ = trained(folder, 0)
    clock, saves = [0.0], []

    def write(*_: Any, **__: Any) -> None:
        saves.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr("pipeline.runtime.resume.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(resume, "_write", write)
    keeper = Keeper(folder / "state")
    for _ in range(200):
        clock[0] += 0.7
        keeper.epoch_ended(running, ended=False)
    assert saves[0] == pytest.approx(5.6)
    assert all(gap > 33 for gap in np.diff(saves))
    assert len(saves) > 3


def test_folder_is_named_by_all_that_decides_the_numbers(folder: Path) -> None:
    examples = join({"speech": folder / "speech"}, labels_of(), CLASSES)
    facts: dict[str, Any] = {
        "kind": "concat",
        "args": {"d_model": 8},
        "params": TrainParams(),
        "examples": examples,
        "device": "cpu",
    }
    write_cache(folder / "other", labels_of(), 0.5, 0)
    labels = [dataclasses.replace(label, splits=("valid",)) for label in labels_of()]
    speech = {"speech": folder / "speech"}
    changes: list[dict[str, Any]] = [
        {},
        {"kind": "heron"},
        {"args": {"d_model": 9}},
        {"args": {"d_model": 8, "inputs": {"mix_layers": True}}},
        {"params": TrainParams(mixup=0.1)},
        {"device": "cuda:1"},
        {"examples": join({"text": folder / "speech"}, labels_of(), CLASSES)},
        {"examples": join({"speech": folder / "other"}, labels_of(), CLASSES)},
        {"examples": join(speech, labels, CLASSES)},
        {"examples": join(speech, labels_of(), CLASSES[::-1])},
    ]
    found = [run_folder(**(facts | change)) for change in changes]
    assert len(set(found)) == len(changes)
    assert run_folder(**facts) == found[0]


def test_code_is_part_of_the_name(folder: Path) -> None:
    project = folder / "copy"
    source, page = project / "pipeline" / "training" / "loop.py", project / "pipeline" / "page.py"
    source.parent.mkdir(parents=True)
    source.write_text("before")
    page.write_text("before")
    code = ("pipeline/training",)
    before = resume.code_sha256(code, project)
    page.write_text("after")
    assert resume.code_sha256(code, project) == before
    source.write_text("after")
    assert resume.code_sha256(code, project) != before
    with pytest.raises(FileNotFoundError, match="nothing"):
        resume.code_sha256(("pipeline/nothing",), project)


def test_what_nobody_came_back_to_is_forgotten(tmp_path: Path) -> None:
    for name in ("done", "recent", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seed_0_fold_0.safetensors").touch()
    long_ago = time.time() - 31 * 24 * 3600
    for path in (tmp_path / "old" / "seed_0_fold_0.safetensors", tmp_path / "old"):
        os.utime(path, (long_ago, long_ago))
    forget(tmp_path / "done")
    assert [path.name for path in tmp_path.iterdir()] == ["recent"]
    forget(tmp_path / "never there")


@pytest.mark.slow
def test_nothing_is_left_of_a_run_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path
) -> None:
    train_model(project(tmp_path, monkeypatch), "m", "c", device="cpu", workers=1)
    assert not list((private_store / "training").iterdir())


class Server:
    """A process that has imported everything and forks a run for each request."""

    def __init__(self, folder: Path, child: str = CHILD) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", child],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def start(self, params: Any, workers: int) -> int:
        """Begin a run in a process group of its own; its process id."""
        assert self.process.stdin is not None
        request = {"params": dataclasses.asdict(params), "workers": workers}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.number()

    def number(self) -> int:
        """The process id, then the exit status of the run."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    with server.process:
        yield server
        assert server.process.stdin is not None
        server.process.stdin.close()


def without_seconds(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = {**results(out)}
    run = json.loads(found["run.json"])
    for name in ("train_seconds", "environment"):  # the environment has the date
        del run[name]
    return found | {"run.json": run}


def killed_often(server: Server, params: Any, store: Path) -> set[str]:
    """Kill a run and all of its group a dozen times, each later than the last where it is slow.

    Returns:
        The jobs that a half-done training was kept of.
    """
    chance, kept, deadline = random.Random(0), set[str](), time.monotonic() + 120
    for number in itertools.count():
        if time.monotonic() > deadline or (number >= 12 and len(kept) > 1):
            break
        child = server.start(params, 1)
        time.sleep(chance.uniform(0.1, 0.4) * (1 + number / 6))
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(child, signal.SIGKILL)
        if server.number() == 0 and len(kept) > 1:
            break  # too fast to be killed
        kept |= {path.name for path in (store / "training").rglob("seed_*")}
    return kept


def check_kills(server: Server, params: Any, store: Path) -> None:
    """Often killed ends as uninterrupted, and leaves nothing behind."""
    out = train_model(params, "m", "c", device="cpu", workers=1)
    expected = without_seconds(out)
    kept = killed_often(server, params, store)
    assert len(kept) > 1
    server.start(params, 1)
    assert server.number() == 0
    assert without_seconds(out) == expected
    assert not list((store / "training").iterdir())


@pytest.mark.slow
def test_killed_at_any_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, private_store: Path
) -> None:
    """Twelve kills of the whole group, jobs one by one; jobs that had ended are not done again."""
    params = project(tmp_path, monkeypatch, folds=2)
    params.models["m"]["train"] = ALL_ON
    check_kills(server, params, private_store)


@pytest.mark.slow
def test_dialogues_killed_at_any_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, private_store: Path
) -> None:
    """The same for whole dialogues: LPGNet, whose batch norm has a state of its own."""
    params = project(tmp_path, monkeypatch)
    labels = over_dialogues(tmp_path, "unused").labels
    write_rows(tmp_path / "data" / "c" / "labels" / "labels.jsonl", labels)
    write_cache(tmp_path / "cache" / "c" / "tone", labels, 0.4, 0, frames=1)
    protocol = {"epochs": 40, "patience": 40, "lr": 1e-3, "batch_size": 4}
    args = {"d_model": 8, "dropout": 0.3}
    params.models["m"].update({"kind": "lpgnet", "text": "tone", "args": args, "train": protocol})
    check_kills(server, params, private_store)


@pytest.mark.slow
def test_workers_end_with_their_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, private_store: Path
) -> None:
    """The parent alone is killed: nobody may write into the folder of the next run."""
    params = project(tmp_path, monkeypatch)
    params.models["m"]["train"] = ALL_ON | {"epochs": 4000, "patience": 4000}
    child = server.start(params, 2)
    deadline = time.monotonic() + 60
    while len(list((private_store / "training").rglob("seed_*.safetensors"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    assert server.number() == -signal.SIGKILL
    while group(child):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found
