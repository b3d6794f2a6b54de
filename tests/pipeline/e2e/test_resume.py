"""An end-to-end training that is stopped between any two steps ends with the same bytes."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from features.errors import HeronryError
from pipeline.data.examples import Examples
from pipeline.e2e.job import TuneJob, run_tune_job
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.run import tune_folder
from pipeline.e2e.source import LiveExamples
from pipeline.e2e.watch import TuneProgress
from pipeline.params.file import Params
from pipeline.params.training import TrainParams
from pipeline.params.tuning import TuneParams
from pipeline.runs.job import Job
from pipeline.runs.record import Run
from pipeline.runtime import checkpoints
from pipeline.runtime.checkpoints import BEST, STEP, Checkpoints
from pipeline.runtime.stopping import StoppedError
from tests.conftest import ManifestMaker
from tests.support.models.small_live import CLASSES, entry_of, labels_of, live_of

SECONDS = [0.3, 0.31, 0.32, 0.33, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35]
SPLITS = ("train", "train", "train", "valid", "test")
EPOCHS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 2,
    "lr": 3e-3,
    "schedule": "plateau",
    "sampler": "to_uniform",
}
TUNING: dict[str, Any] = {
    "specaugment": 0.2,
    "slots": {"text": {"tune": "lora"}, "speech": {"lr": 1e-3}},
}
Make = Callable[..., TuneJob]


@pytest.fixture
def make(tmp_path: Path, make_manifest: ManifestMaker) -> Make:
    """A function that makes a job with dropout, adapters and masking; `out` names its folder."""
    entries = {"text": entry_of("bert", tmp_path), "speech": entry_of("hubert_group", tmp_path)}
    manifest = make_manifest(SECONDS)
    labels = labels_of(manifest, SPLITS)
    labels = [dataclasses.replace(label, speaker=f"s{i % 5}") for i, label in enumerate(labels)]

    def made(out: str, train: dict[str, Any] | None = None, **tuning: Any) -> TuneJob:
        backbones: dict[str, Any] = {slot: entry.build() for slot, entry in entries.items()}
        live = live_of(manifest, backbones, Examples({}, labels, CLASSES, {}), batch_size=2)
        params = TrainParams(**(EPOCHS | (train or {})))
        return TuneJob(
            job_of(labels, params, tmp_path / out),
            entries,
            live,
            TuneParams(**(TUNING | {"save_seconds": 1e-9} | tuning)),
            "tones",
        )

    return made


def job_of(labels: Any, params: TrainParams, out: Path) -> Job:
    return Job(
        title="test",
        kind="concat",
        args={"d_model": 8, "dropout": 0.3},
        slots={},
        labels=labels,
        classes=CLASSES,
        params=params,
        seed=3,
        fold=0,
        out=out,
        device="cpu",
        kept=out.parent / "kept",
    )


def not_kept(tuning: TuneJob) -> TuneJob:
    """The same training without checkpoints."""
    return dataclasses.replace(tuning, job=dataclasses.replace(tuning.job, kept=None))


def folder_of(tuning: TuneJob) -> Path:
    """The folder of its checkpoints."""
    assert tuning.job.kept is not None
    return tuning.job.kept / "seed_3_fold_0"


def results(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


class KilledError(Exception):
    """In place of SIGKILL: nothing is done any more."""


def killed_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A training ends behind so many steps and validation batches."""
    advance, left = TuneProgress.advance, [steps]

    def counted(self: TuneProgress, ids: Any, loss: Any) -> None:
        advance(self, ids, loss)
        left[0] -= 1
        if left[0] == 0:
            raise KilledError

    monkeypatch.setattr(TuneProgress, "advance", counted)


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "precision"), [(1, "float32"), (2, "float16")])
def test_resumes_after_any_step_with_the_same_result(
    make: Make, monkeypatch: pytest.MonkeyPatch, accumulate: int, precision: str
) -> None:
    """Killed again and again, each time a few steps later: within epochs, in validation, after."""
    train = {"accumulate": accumulate}
    run_tune_job(not_kept(make("whole", train, precision=precision)))
    lines: list[str] = []
    for lives in range(20):
        torch.manual_seed(99)  # whatever the generators were at
        with monkeypatch.context() as patch:
            killed_after(patch, 1 + lives % 3)
            try:
                again = make("again", train, precision=precision)
                run_tune_job(again, lambda text, **_: lines.append(text))
            except KilledError:
                continue
        break
    assert lives > 2
    assert any(re.search(r"resumes after epoch 1 and \d batches of the next", t) for t in lines)
    assert results(make("again").job.out) == results(make("whole").job.out)


def test_batches_that_are_done_are_not_read_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(KilledError):
            run_tune_job(make("again"))
    read: list[str] = []
    inputs = LiveExamples._inputs

    def noted(self: LiveExamples, slot: str, ids: Any) -> Any:
        read.extend(ids)
        return inputs(self, slot, ids)

    monkeypatch.setattr(LiveExamples, "_inputs", noted)
    killed_after(monkeypatch, 1)
    with pytest.raises(KilledError):
        run_tune_job(make("again"))
    assert len(read) == 2 * 2  # of six utterances in batches of two the last batch, by two slots


def test_checkpoints_rotate_and_the_best_is_there_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights are in none of the files; temporary ones of a kill go."""
    tuning, seen = make("out", keep=3), []
    folder = folder_of(tuning)
    folder.mkdir(parents=True)
    (folder / ".step_00000001.safetensors-abc").touch()
    save = Checkpoints.save

    def noted(self: Checkpoints, *given: Any, **more: Any) -> bool:
        saved = save(self, *given, **more)
        seen.append((len(list(folder.glob(STEP))), len(list(folder.glob(BEST)))))
        return saved

    monkeypatch.setattr(Checkpoints, "save", noted)
    run_tune_job(tuning)
    steps, bests = zip(*seen, strict=True)
    assert max(steps) == 3
    assert max(bests) <= 2
    assert seen[-1] == (1, 1)
    assert not list(folder.glob(".*"))
    (best,) = folder.glob(BEST)
    tensors, _ = checkpoints.read_state(best)  # type: ignore[misc]
    assert any("lora_A" in name for name in tensors)
    assert not any("base_layer" in name or "feature_extractor" in name for name in tensors)


@pytest.mark.slow
def test_a_training_that_had_ended_is_not_done_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tune_job(make("whole"))
    killed_after(monkeypatch, 1)
    run_tune_job(make("again"))
    assert results(make("again").job.out) == results(make("whole").job.out)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tune_job(not_kept(make("whole")))
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(KilledError):
            run_tune_job(make("again"))
    folder = folder_of(make("again"))
    older, newest = sorted(folder.glob(STEP))
    newest.write_bytes(newest.read_bytes()[:1000])
    lines: list[str] = []
    run_tune_job(make("again"), lambda text, **_: lines.append(text))
    assert "is no half-done training" in capsys.readouterr().err
    assert "resumes after" in lines[0]
    assert older.name < newest.name
    assert results(make("again").job.out) == results(make("whole").job.out)


@pytest.mark.slow
def test_a_full_disk_neither_stops_a_training_nor_loses_a_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third checkpoint and all after it do not fit; the job is killed, and resumed."""
    run_tune_job(not_kept(make("whole")))
    write, left, lines = save_file, [2], list[str]()

    def full(tensors: Any, path: Path, **more: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            path.write_bytes(b"a part of it")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        write(tensors, path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        killed_after(patch, 9)
        with pytest.raises(KilledError):
            run_tune_job(make("again"), lambda text, **_: lines.append(text))
    folder = folder_of(make("again"))
    names = ["step_00000001.safetensors", "step_00000002.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    (line,) = (text for text in lines if "No space left" in text)
    assert f"if it is killed it resumes from {folder / names[1]}" in line
    run_tune_job(make("again"))
    assert results(make("again").job.out) == results(make("whole").job.out)


@pytest.mark.slow
def test_sigterm_finishes_the_step_and_saves(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tune_job(not_kept(make("whole")))
    before = signal.getsignal(signal.SIGTERM)
    forward, calls = torch.nn.Module.__call__, [0]
    with monkeypatch.context() as patch:

        def signalled(self: Any, *given: Any) -> Any:
            calls[0] += 1
            if calls[0] == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return forward(self, *given)

        patch.setattr(EndToEnd, "__call__", signalled)
        with pytest.raises(StoppedError, match=r"stopped by SIGTERM after step 2 .*resumes from"):
            run_tune_job(make("again", save_seconds=1000.0))
    assert signal.getsignal(signal.SIGTERM) == before
    run_tune_job(make("again", save_seconds=1000.0))
    assert results(make("again").job.out) == results(make("whole").job.out)


def test_the_last_good_checkpoint_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, calls = EndToEnd.loss, [0]

    def spoilt(self: Any, *given: Any) -> Any:
        calls[0] += 1
        return loss(self, *given) * (torch.nan if calls[0] == 3 else 1.0)

    monkeypatch.setattr(EndToEnd, "loss", spoilt)
    with pytest.raises(HeronryError, match=r"loss is nan .*the last one is .*step_00000002"):
        run_tune_job(make("again"))
    folder = folder_of(make("again"))
    state, _ = checkpoints.read_state(folder / "step_00000002.safetensors")  # type: ignore[misc]
    assert all(
        bool(value.isfinite().all()) for value in state.values() if value.is_floating_point()
    )


def test_all_that_decides_the_numbers_names_the_folder(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = entry_of("bert", tmp_path)
    manifest = make_manifest(SECONDS)
    live = live_of(manifest, {"text": entry.build()})
    model = {"kind": "concat", "text": "bert", "args": {"d_model": 8}}
    params = Params("m", "e2e", "mine", 1, {}, {}, {"bert": {}, "none": {}}, {"m": model})
    slots = {"text": {"provenance": {"weights_sha256": "0"}}}

    def folder(
        given: Params = params,
        examples: LiveExamples = live,
        slots: Any = slots,
        device: str = "cpu",
    ) -> Path:
        run = Run(given, given.model("m"), "mine", "e2e", [], CLASSES, 1, {}, writes=True)
        return tune_folder(run, examples, slots, device)

    words = {u.id: dataclasses.replace(u, text=f"{u.text}!") for u in manifest}
    sound = {u.id: dataclasses.replace(u, sha256="0" * 64) for u in manifest}
    labels = labels_of(manifest, ("train", "test"))
    begun, others = (
        replaced(params, e2e={"init": {"run": "run", "sha256": hash}}) for hash in ("0", "1")
    )
    found = [
        folder(),
        folder(replaced(params, models={"m": model | {"args": {"d_model": 9}}})),
        folder(replaced(params, models={"m": model | {"inputs": {"layer_norm": ["text"]}}})),
        folder(replaced(params, train={"lr": 1e-4})),
        folder(replaced(params, e2e={"precision": "bfloat16"})),
        folder(replaced(params, e2e={"slots": {"text": {"tune": "lora"}}})),
        folder(begun),
        folder(others),
        folder(examples=replaced(live, utterances=words)),
        folder(examples=replaced(live, utterances=sound)),
        folder(examples=replaced(live, cached=replaced(live.cached, labels=labels))),
        folder(slots={"text": {"provenance": {"weights_sha256": "1"}}}),
        folder(device="cuda"),
    ]
    assert len(set(found)) == len(found)
    moved = replaced(params, e2e={"init": {"run": "moved", "sha256": "0"}})
    assert folder(moved) == folder(begun)
    free = {"save_seconds": 1.0, "keep": 5}
    assert folder(replaced(params, e2e=free)) == folder()
