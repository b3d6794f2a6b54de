"""Experiment trackers: what they show, what they leave alone, and what is said when they fail."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.errors import ParamsError
from features.process import interrupts
from pipeline import tracking
from pipeline.cached.run import train_model
from pipeline.e2e.run import finetune_model
from pipeline.params.file import Params, all_problems
from pipeline.params.selection import selection_problems
from pipeline.tracking import FOLDER, REPORT, Tracked, Trackers, tracker_problems
from stages.evaluate.__main__ import main as evaluate
from tests.support.known_params import shipped_raw
from tests.support.models.tuned_tones import Tones, cached, params_of
from tests.support.paths import ROOT

SETTINGS = {"regime": "cached", "corpus": "c", "fusion": "m", "kind": "concat"}
RECORD = {**SETTINGS, "args": {"d_model": 8}, "train": {"lr": 5e-4}, "slots": {"text": None}}


def tracked(folder: Path, *trackers: str, name: str = REPORT) -> Tracked:
    return dataclasses.replace(Tracked.of(list(trackers), RECORD, name), folder=folder)


class Recorder:
    """A tracker that keeps its calls, and fails in those of `failing`."""

    package = "pytest"
    failing = ""

    def __init__(self, _: Tracked) -> None:
        self.calls: list[str] = []
        self._call("open")

    def log(self, step: int, values: Any) -> None:
        self._call(f"log {step} {values}")

    def attach(self, page: Path) -> None:
        self._call(f"attach {page}")

    def close(self, *, failed: bool) -> None:
        self._call(f"close {failed}")

    def _call(self, text: str) -> None:
        self.calls.append(text)
        if self.failing and text.startswith(self.failing):
            raise ConnectionError("no answer\nfrom the server")


@pytest.mark.parametrize("failing", ["open", "log", "attach", "close"])
def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recorder] = []

    def load(_: str, name: str) -> Any:
        def build(given: Tracked) -> Recorder:
            of = type("Of", (Recorder,), {"failing": failing if name == "bad" else ""})
            made.append(of(given))
            return made[-1]

        return build

    monkeypatch.setattr(tracking, "load", load)
    said: list[str] = []
    with Trackers(tracked(tmp_path, "bad", "good"), said.append) as trackers:
        trackers.log(1, {"loss": 2.0})
        trackers.attach(Path("page"))
    line = "warning: tracker bad: no answer from the server; it is left out from here on"
    assert said == [line]
    assert made[-1].calls == ["open", "log 1 {'loss': 2.0}", "attach page", "close False"]
    assert all(call.startswith(failing) for each in made[:-1] for call in each.calls[-1:])


def test_a_signal_that_a_tracker_turns_into_its_own_error_is_not_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = type("Of", (Recorder,), {"failing": "log"})
    monkeypatch.setattr(tracking, "load", lambda *_: failing)
    monkeypatch.setattr(interrupts, "asked", lambda: 2)
    trackers = Trackers(tracked(tmp_path, "bad"), len)
    with pytest.raises(ConnectionError), trackers:
        trackers.log(1, {"loss": 2.0})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("mlflow", "trackers: given 'mlflow'; expected a list of some of ['mlflow', "),
        (["mlfow"], "trackers: given 'mlfow'; expected one of"),
        (["wandb"], "trackers: given 'wandb', whose package is not installed; expected it: `pip "),
    ],
)
def test_wrong_settings_and_missing_packages_are_told_before_anything_runs(
    given: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    assert [line.startswith(told) for line in tracker_problems(given)] == [True]
    raw = shipped_raw() | {"trackers": given}
    assert tracker_problems(given) == selection_problems(raw)
    assert all_problems(Params(**raw))


def test_the_setting_of_older_releases_is_named() -> None:
    (line,) = all_problems(Params(**shipped_raw() | {"e2e": {"tensorboard": True}}))
    assert line.startswith("e2e.tensorboard: ")
    assert "`trackers: [tensorboard]`" in line


def test_no_stage_depends_on_the_setting_and_git_ignores_what_is_written() -> None:
    for path in (ROOT / "dvc.yaml", *ROOT.glob("stages/*/dvc.yaml")):
        for stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"].values():
            assert tracking.__name__ not in str(stage)
            assert not any("trackers" in name for name in stage.get("do", stage).get("params", ()))
    assert f"/{FOLDER}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_mlflow_keeps_settings_scores_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking_module = pytest.importorskip("mlflow.tracking", reason="the extra mlflow is missing")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("DVC_EXP_NAME", "first-try")
    write(tmp_path, "mlflow")
    client = tracking_module.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "heronry"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"m on c, seed_0/fold_0", "m on c, report"}
    trained, report = runs["m on c, seed_0/fold_0"], runs["m on c, report"]
    points = client.get_metric_history(trained.info.run_id, "valid/uar")
    assert [(point.step, point.value) for point in points] == [(1, 0.25), (2, 0.5)]
    assert trained.data.params["train.lr"] == "0.0005"
    assert trained.info.status == "FAILED"
    assert report.info.status == "FINISHED"
    assert trained.data.tags["heronry.group"] == report.data.tags["heronry.group"]
    assert report.data.tags["heronry.experiment"] == "first-try"
    assert [f.path for f in client.list_artifacts(report.info.run_id)] == ["index.html"]


def test_wandb_keeps_settings_scores_and_page_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    # Copies of artifacts, which are sent later, would go to the user's own folder.
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    write(tmp_path, "wandb")
    wandb.teardown()
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    content = b"".join(path.read_bytes() for path in files)
    assert len(files) == 2
    for text in (b"valid/uar", b'"d_model"', b"cached/c/m/", b"index.html"):
        assert text in content, text


def write(folder: Path, tracker: str) -> None:
    """A training of two epochs that ends by an error, and a report."""
    page = folder / "index.html"
    page.write_text("<p>the report</p>")

    def fail(line: str) -> None:
        raise AssertionError(line)

    training = Trackers(tracked(folder, tracker, name="seed_0/fold_0"), fail)
    with contextlib.suppress(ZeroDivisionError), training:
        training.log(1, {"valid/uar": 0.25})
        training.log(2, {"valid/uar": 0.5})
        raise ZeroDivisionError
    with Trackers(tracked(folder, tracker), fail) as report:
        report.log(0, {"uar": 0.5})
        report.attach(page)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Tones(tmp_path, monkeypatch)
    made.write()
    made.prepare()


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("regime", ["cached", "e2e"])
def test_event_files_hold_the_history_and_change_no_output(
    regime: str, tmp_path: Path, private_store: Path
) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name, reason="the extra tensorboard is not installed")
    params = dataclasses.replace(params_of(tmp_path), regime=regime, train={"epochs": 2})
    names = ("tone",) if regime == "e2e" else ("tone", "words", "voice")
    cached(params, private_store, *names)
    train = finetune_model if regime == "e2e" else train_model
    out = train(params, "m", "mine", device="cpu")
    before = contents(out)
    train(dataclasses.replace(params, trackers=["tensorboard"]), "m", "mine", device="cpu")
    assert contents(out) == before
    (tmp_path / "params.yaml").write_text("trackers: [tensorboard]\n")
    evaluate(regime, "mine", "m")
    # One group, though the report's is made of run.json.
    (group,) = (tmp_path / FOLDER / "tensorboard" / regime / "mine" / "m").iterdir()
    events = accumulator.EventAccumulator(str(group / "seed_0/fold_0")).Reload()
    with (out / "seed_0/fold_0/history.csv").open() as file:
        history = list(csv.DictReader(file))
    for name, column in (("train/loss", "train_loss"), ("valid/uar", "valid_uar")):
        found = events.Scalars(name)
        assert [event.step for event in found] == [1, 2]
        values = [float(row[column]) for row in history]
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
    report = accumulator.EventAccumulator(str(group / REPORT)).Reload()
    page = (tmp_path / "reports/index.html").read_bytes()
    assert (group / REPORT / "index.html").read_bytes() == page
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    for name, key in (("test/uar", "uar"), ("valid/macro_f1", "valid_macro_f1"), ("seeds",) * 2):
        assert report.Scalars(name)[0].value == pytest.approx(metrics[key])


def contents(run: Path) -> dict[str, bytes]:
    """All files of a run but run.json, which holds seconds."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("regime", ["cached", "e2e"])
def test_training_refuses_a_missing_package_first(
    regime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    params = dataclasses.replace(params_of(tmp_path), trackers=["mlflow"])
    train = finetune_model if regime == "e2e" else train_model
    with pytest.raises(ParamsError, match=r"'mlflow', whose package is not installed"):
        train(params, "m", "mine", device="cpu")
