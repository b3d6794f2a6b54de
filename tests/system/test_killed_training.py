"""`kill -9` of a training on caches: the same command resumes it, and ends with the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.files.records import write_rows
from pipeline.cached.run import train_model
from tests.pipeline.runtime.test_checkpoints import ALL_ON, over_dialogues
from tests.pipeline.training.test_loop import project, results, write_cache
from tests.support.machines.forked import ForkServer, group, serving, without_seconds
from tests.system.test_dvc import Project, params, write_corpus

EPOCHS = 1500  # some ten seconds: more than the five between two saves
IMPORTS = """
import pipeline.fusion.concat
import pipeline.fusion.lpgnet
from features.errors import HeronryError
from pipeline.cached.run import train_model
from pipeline.runtime import checkpoints

checkpoints.SAVE_SECONDS = 0.0
checkpoints.SAVE_SHARE = 1e9
"""
TRAIN = 'train_model(params, "m", "c", device="cpu", workers=workers)'


def made(root: Path, store: Path) -> Project:
    root.mkdir(parents=True)
    project = Project(root, store)
    write_corpus(project.corpus)
    content: dict[str, Any] = params()
    content["train"] |= {"epochs": EPOCHS, "patience": EPOCHS, "lr": 1e-5}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    project.run("dvc", "init", "-q")
    return project


@pytest.mark.slow
@pytest.mark.dvc
def test_repro_resumes_after_a_kill(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole" / "project", tmp_path / "store")
    whole.run("dvc", "repro", "-q")
    project = made(tmp_path / "killed" / "project", tmp_path / "other store")
    with (tmp_path / "log").open("w") as log:
        repro = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "-q"],
            cwd=project.root,
            env=project.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while not list((tmp_path / "other store" / "training").rglob("step_*")):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            assert repro.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()
    said = project.run("dvc", "repro", "-q")
    epochs = [int(number) for number in re.findall(r"resumes after epoch (\d+)", said)]
    assert epochs
    assert all(0 < epoch < EPOCHS for epoch in epochs)
    runs = [each.root / "runs/cached/tones/speech" for each in (whole, project)]
    names = sorted(path.relative_to(runs[0]) for path in runs[0].rglob("seed_*/*/*"))
    assert len(names) == 2 * 5 + 1  # probes have no seed: the first one's folder holds them
    for name in names:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert not list((tmp_path / "other store" / "training").iterdir())


@pytest.fixture
def server(tmp_path: Path, private_store: Path) -> Iterator[ForkServer]:  # noqa: ARG001  sets it
    with serving(tmp_path, IMPORTS, TRAIN) as server:
        yield server


def killed_often(server: ForkServer, params: Any, store: Path) -> set[str]:
    """Kill a run and all of its group a dozen times, each later than the last where it is slow.

    Returns:
        The jobs that a half-done training was kept of.
    """
    chance, kept, deadline = random.Random(0), set[str](), time.monotonic() + 120
    for number in itertools.count():
        if time.monotonic() > deadline or (number >= 12 and len(kept) > 1):
            break
        child = server.start(params)
        time.sleep(chance.uniform(0.1, 0.4) * (1 + number / 6))
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(child, signal.SIGKILL)
        if server.number() == 0 and len(kept) > 1:
            break  # too fast to be killed
        kept |= {path.parent.name for path in (store / "training").rglob("step_*")}
    return kept


def check_kills(server: ForkServer, params: Any, store: Path) -> None:
    """A run that is often killed ends as an uninterrupted one, and leaves nothing behind."""
    out = train_model(params, "m", "c", device="cpu", workers=1)
    expected = without_seconds(results(out))
    kept = killed_often(server, params, store)
    assert len(kept) > 1
    server.start(params)
    assert server.number() == 0
    assert without_seconds(results(out)) == expected
    assert not list((store / "training").iterdir())


@pytest.mark.slow
def test_killed_at_any_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ForkServer, private_store: Path
) -> None:
    """Twelve kills of the whole group, jobs one by one; jobs that had ended are not done again."""
    params = project(tmp_path, monkeypatch, folds=2)
    params.models["m"]["train"] = ALL_ON
    check_kills(server, params, private_store)


@pytest.mark.slow
def test_dialogues_killed_at_any_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ForkServer, private_store: Path
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ForkServer, private_store: Path
) -> None:
    """The parent alone is killed: no worker may write into the folder of the next run."""
    params = project(tmp_path, monkeypatch)
    params.models["m"]["train"] = ALL_ON | {"epochs": 4000, "patience": 4000}
    child = server.start(params, workers=2)
    deadline = time.monotonic() + 240
    while len(list((private_store / "training").glob("*/seed_*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    assert server.number() == -signal.SIGKILL
    while group(child):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
