"""DVC's queue: six experiments, two at a time, that share caches and work store."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.test_dvc import SOURCE, Project, params, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
MODELS = ("speech", "mel", "both")
RATES = (0.01, 0.005)
DEADLINE = 1200  # seconds; six jobs take two to eight minutes of a machine with two cores


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in which only the corpus was prepared."""
    root = tmp_path_factory.mktemp("queue")
    made = Project(root / "project", root / "store")
    write_corpus(made.corpus)
    content: dict[str, Any] = params()
    mel = {**copy.deepcopy(content["models"]["speech"]), "speech": "none", "spectral": "mel"}
    content["models"]["mel"] = mel
    content["seeds"] = 1
    (made.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", made.root / ".dvc" / "config")
    made.run("dvc", "repro", "-q", "stages/prepare/dvc.yaml:prepare@tones")
    made.commit("Start")
    yield made
    made.run("dvc", "queue", "stop", "--kill")


def experiments(project: Project) -> dict[tuple[str, float], dict[str, Any]]:
    """Metrics of each finished experiment, by model and rate."""
    shown = json.loads(project.run("dvc", "exp", "show", "--json").partition("\n")[0])
    found = {}
    for entry in shown[1]["experiments"]:  # of the commit; the first is the workspace
        data = entry["revs"][0]["data"]
        settings = data["params"]["params.yaml"]["data"]
        key = (settings["fusion"], settings["train"]["lr"])
        found[key] = data["metrics"]["reports/metrics.json"]["data"]
    return found


def test_six_queued_jobs_end_as_if_run_by_hand(project: Project) -> None:
    queued = project.run(
        *("dvc", "exp", "run", "--queue"),
        *("-S", f"fusion={','.join(MODELS)}", "-S", f"train.lr={','.join(map(str, RATES))}"),
    )
    assert queued.count("Queued experiment") == len(MODELS) * len(RATES)
    project.run("dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + DEADLINE
    while True:
        status = project.run("dvc", "queue", "status")
        if "Queued" not in status and "Running" not in status:
            break
        assert time.monotonic() < deadline, status
        time.sleep(5)  # asking takes a core for two
    assert status.count("Success") == 6, status
    found = experiments(project)
    assert set(found) == {(model, rate) for model in MODELS for rate in RATES}
    assert len({json.dumps(metrics, sort_keys=True) for metrics in found.values()}) > 3
    # Jobs that needed the same features used one work store: a folder a backbone.
    computed = sorted(Path(project.root.parent / "store").glob("*/*.h5"))
    assert len({path.parent for path in computed}) == 2
    board = project.run("pipeline", "board", "--quick")
    assert all(board.count(f"  {model} ") == len(RATES) for model in MODELS), board
    # The workspace was left alone, and by hand comes the same.
    assert not (project.root / "reports").exists()
    shutil.rmtree(project.root / ".dvc/cache/runs")  # or DVC would fetch what the queue made
    said = project.run("dvc", "exp", "run", "-S", "fusion=both", "-S", "train.lr=0.005")
    assert "> python -m stages.train" in said
    by_hand = project.metrics()
    queued_numbers = {k: v for k, v in found["both", 0.005].items() if not k.endswith("seconds")}
    assert queued_numbers == {key: by_hand[key] for key in queued_numbers}
