"""What names the folder of half-done trainings, which edits they survive, when they are removed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cached.run import train_model
from pipeline.data.examples import join
from pipeline.e2e.run import finetune_model
from pipeline.params.file import ModelEntry
from pipeline.params.training import TrainParams
from pipeline.runs.job import JobProgress
from pipeline.runtime import resume
from pipeline.runtime.resume import code_of, forget, run_folder, shard_checksums
from pipeline.training.state import Training
from tests.pipeline.training.test_loop import CLASSES, labels_of, project, write_cache
from tests.support.models.tuned_tones import Tones, cached, params_of
from tests.support.paths import ROOT


def test_folder_is_named_by_all_that_decides_the_numbers(tmp_path: Path) -> None:
    write_cache(tmp_path / "speech", labels_of(), 0.4, 0)
    write_cache(tmp_path / "other", labels_of(), 0.5, 0)
    speech = {"speech": tmp_path / "speech"}
    model = ModelEntry("m", "concat", args={"d_model": 8})
    facts: dict[str, Any] = {
        "model": model,
        "params": TrainParams(),
        "examples": join(speech, labels_of(), CLASSES),
        "regime": "cached",
        "device": "cpu",
    }
    labels = [dataclasses.replace(label, splits=("valid",)) for label in labels_of()]
    changes: list[dict[str, Any]] = [
        {},
        {"model": dataclasses.replace(model, kind="heron")},
        {"model": dataclasses.replace(model, args={"d_model": 9})},
        {"model": dataclasses.replace(model, inputs={"layer_norm": ["speech"]})},
        {"params": TrainParams(mixup=0.1)},
        {"device": "cuda:1"},
        {"regime": "e2e"},
        {"examples": join({"text": tmp_path / "speech"}, labels_of(), CLASSES)},
        {"examples": join({"speech": tmp_path / "other"}, labels_of(), CLASSES)},
        {"examples": join(speech, labels, CLASSES)},
        {"examples": join(speech, labels_of(), CLASSES[::-1])},
    ]

    def folder(change: dict[str, Any]) -> Path:
        given = facts | change
        caches = {"slots": shard_checksums(given["examples"])}
        return run_folder(
            given.pop("model"), given.pop("params"), given.pop("examples"), **given, facts=caches
        )

    found = [folder(change) for change in changes]
    assert len(set(found)) == len(changes)
    assert folder({}) == found[0]
    assert folder({"device": "cuda:0"}) == folder({"device": "cuda:1"})


@pytest.mark.parametrize(("stage", "regime"), [("train", "cached"), ("e2e", "e2e")])
def test_code_holds_every_source_that_the_stage_depends_on(stage: str, regime: str) -> None:
    content = yaml.safe_load((ROOT / "stages" / stage / "dvc.yaml").read_text())
    deps: list[str] = content["stages"][stage]["do"]["deps"]
    sources = [dep for dep in deps if dep.startswith(("features/", "pipeline/"))]
    assert len(sources) > 10
    assert {dep.replace("${item.kind}", "heron") for dep in sources} <= {*code_of("heron", regime)}


def test_nothing_is_hashed_unnoticed(tmp_path: Path) -> None:
    """A hash of no files would never change."""
    with pytest.raises(FileNotFoundError, match="nothing"):
        resume.code_sha256(("pipeline/nothing",), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no Python files"):
        resume.code_sha256(("empty",), tmp_path)


OTHERS = (  # sources that decide no number of a training: folders, and single files
    "pipeline/report",
    "pipeline/evaluation",
    "pipeline/commands",
    "pipeline/compare",
    "pipeline/storage",
    "pipeline/runtime",
    "pipeline/fusion/heron.py",
    "features/process/terminal.py",
    "stages",
)
OWN = ("pipeline/training/loop.py", "pipeline/fusion/concat.py", "features/cache/reader.py")


class KilledError(Exception):
    """In place of a kill."""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, which is hashed in their place; the originals are what runs."""
    copy = tmp_path / "sources"
    for name in ("features", "pipeline", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    monkeypatch.setattr(resume, "PROJECT", copy)
    return copy


def edit(place: Path) -> None:
    """Append a comment to a file, or to all files below a folder."""
    paths = list(place.rglob("*.py")) if place.is_dir() else [place]
    assert paths
    for path in paths:
        path.write_text(path.read_text() + "# edited\n")


def killed_after_an_epoch(monkeypatch: pytest.MonkeyPatch, train: Any) -> None:
    """A training is saved after its first epoch, and ends there."""

    def killed(self: JobProgress, training: Training, *, ended: bool) -> None:
        assert self.checkpoints.save(training, ended=ended)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(JobProgress, "epoch_ended", killed)
        patch.setattr("pipeline.e2e.watch.TuneProgress.epoch_ended", killed)
        with pytest.raises(KilledError):
            train()


def check_edits(
    train: Any,
    sources: Path,
    own: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Edits of `OTHERS` keep a half-done training; each of one's own sources starts it again."""
    killed_after_an_epoch(monkeypatch, train)
    for name in OTHERS:
        edit(sources / name)
    # Without its end a training has to resume again and again: a checkpoint is there each time.
    killed_after_an_epoch(monkeypatch, train)
    assert "resumes after epoch 1" in capsys.readouterr().err
    for name in own:
        edit(sources / name)
        killed_after_an_epoch(monkeypatch, train)
        assert "resumes" not in capsys.readouterr().err, name


def test_cached_training_survives_edits_of_others_code_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = project(tmp_path, monkeypatch)
    params.models["m"]["train"] = {"epochs": 9}

    def train() -> None:
        train_model(params, "m", "c", device="cpu", workers=1)

    check_edits(train, sources, (*OWN, "pipeline/cached/run.py"), monkeypatch, capsys)


def test_end_to_end_training_survives_edits_of_others_code_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: Path,
    private_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = Tones(tmp_path, monkeypatch)
    corpus.write()
    corpus.prepare()
    params = params_of(tmp_path, slots={"text": {"tune": "frozen"}, "speech": {"tune": "frozen"}})
    cached(params, private_store, "tone")

    def train() -> None:
        finetune_model(params, "m", "mine", device="cpu")

    own = (*OWN, "pipeline/e2e/tuning.py", "features/backbones/speech_encoder.py")
    check_edits(train, sources, own, monkeypatch, capsys)


def test_abandoned_trainings_are_removed_after_a_month(tmp_path: Path) -> None:
    for name in ("done", "recent", "old"):
        (tmp_path / name / "seed_0_fold_0").mkdir(parents=True)
    long_ago = time.time() - 31 * 24 * 3600
    for path in (tmp_path / "old" / "seed_0_fold_0", tmp_path / "old"):
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
