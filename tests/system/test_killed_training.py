"""`kill -9` in the middle of a training, then `dvc repro`: it goes on, and ends the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.test_dvc import Project, params, write_corpus

EPOCHS = 1500  # some ten seconds: more than the five between two saves


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
def test_repro_after_a_kill_goes_on(tmp_path: Path) -> None:
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
        deadline = time.monotonic() + 120
        while not list((tmp_path / "other store" / "training").rglob("seed_*")):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            assert repro.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()
    said = project.run("dvc", "repro", "-q")
    epochs = [int(number) for number in re.findall(r"goes on after epoch (\d+)", said)]
    assert epochs
    assert all(0 < epoch < EPOCHS for epoch in epochs)
    runs = [each.root / "runs/cached/tones/speech" for each in (whole, project)]
    names = sorted(path.relative_to(runs[0]) for path in runs[0].rglob("seed_*/*/*"))
    assert len(names) == 2 * 5 + 1  # probes have no seed: the first one's folder holds them
    for name in names:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert not list((tmp_path / "other store" / "training").iterdir())
