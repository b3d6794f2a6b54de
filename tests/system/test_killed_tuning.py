"""`kill -9` and SIGTERM of a whole end-to-end run: the same command ends with the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.params.file import Params
from tests.support.machines.forked import ForkServer, group, serving, without_seconds
from tests.support.models.tuned_tones import RUN, Tones, cached, params_of, results

IMPORTS = """
from features.audio import torchaudio_cpu
import peft
import pipeline.fusion.concat
import transformers.models.bert.modeling_bert
import transformers.models.hubert.modeling_hubert
from features.errors import HeronryError
from pipeline.e2e.run import finetune_model
"""
TRAIN = 'finetune_model(params, "m", "mine", device="cpu")'


@pytest.fixture
def server(tmp_path: Path, params: Params) -> Iterator[ForkServer]:  # noqa: ARG001  sets the root
    with serving(tmp_path, IMPORTS, TRAIN) as server:
        yield server


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path) -> Params:
    corpus = Tones(tmp_path, monkeypatch)
    corpus.write()
    corpus.prepare()
    slots = {"text": {"tune": "lora"}, "speech": {"lr": 1e-3}}
    made = params_of(tmp_path, slots=slots, save_seconds=1e-3, specaugment=0.1)
    made.models["m"]["train"] |= {
        "schedule": "plateau",
        "accumulate": 2,
        "batch_size": 4,
        "epochs": 2,
    }
    cached(made, private_store, "tone")
    return dataclasses.replace(made, seeds=2)


def uninterrupted(server: ForkServer, params: Params) -> dict[str, Any]:
    server.start(params)
    assert server.number() == 0
    return without_seconds(results() | {"run.json": (RUN / "run.json").read_bytes()})


def steps(store: Path) -> set[Path]:
    """The checkpoints that are there now."""
    return set((store / "training").rglob("step_*"))


@pytest.mark.slow
def test_ended_at_any_instant(server: ForkServer, params: Params, private_store: Path) -> None:
    """By SIGKILL and SIGTERM in turn, soon after it has come further than ever before."""
    expected = uninterrupted(server, params)
    chance, statuses, kept = random.Random(0), list[int](), set[Path]()
    for number in range(6):
        child = server.start(params)
        while steps(private_store) <= kept and group(child):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(child, signal.SIGTERM if number % 2 else signal.SIGKILL)
        statuses.append(server.number())
        if statuses[-1] == 0:
            break
        kept |= steps(private_store)
    assert statuses.count(-signal.SIGKILL) > 1
    assert kept
    assert uninterrupted(server, params) == expected
    assert not list((private_store / "training").iterdir())
    lines = Path("errors.txt").read_text().splitlines()
    assert any("resumes after epoch" in line for line in lines)
    stopped = [line for line in lines if line.startswith("stopped by SIGTERM after step ")]
    assert len(stopped) == statuses.count(1)
    assert all("the same command resumes from " in line for line in stopped)
