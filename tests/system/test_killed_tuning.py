"""`kill -9` and SIGTERM of a whole end-to-end run: the same command ends with the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.params.file import Params
from tests.pipeline.runtime.test_resume import Server, group
from tests.support.tuned_tones import RUN, Tones, cached, params_of, results

CHILD = """
import json, os, sys
import torch
from features import torchaudio_cpu
import peft
import pipeline.fusion.concat
import transformers.models.bert.modeling_bert
import transformers.models.hubert.modeling_hubert
from features.errors import HeronryError
from pipeline.e2e.run import finetune_model
from pipeline.params.file import Params

torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)])  # imports much when it is first made

if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            sys.stderr = open("errors.txt", "a")
            try:
                finetune_model(Params(**json.loads(line)["params"]), "m", "mine", device="cpu")
            except HeronryError as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def server(tmp_path: Path, params: Params) -> Iterator[Server]:  # noqa: ARG001  sets the root
    server = Server(tmp_path, CHILD)
    with server.process:
        yield server
        assert server.process.stdin is not None
        server.process.stdin.close()


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


def files() -> dict[str, Any]:
    """What a run ends in, without its seconds and its environment."""
    found: dict[str, Any] = {**results()}
    run = json.loads((RUN / "run.json").read_text())
    for name in ("train_seconds", "environment"):
        del run[name]
    return found | {"run.json": run}


def uninterrupted(server: Server, params: Params) -> dict[str, Any]:
    server.start(params, 1)
    assert server.number() == 0
    return files()


def steps(store: Path) -> set[Path]:
    """The checkpoints that are there now."""
    return set((store / "training").rglob("step_*"))


@pytest.mark.slow
def test_ended_at_any_instant(server: Server, params: Params, private_store: Path) -> None:
    """By SIGKILL and SIGTERM in turn, soon after it has come further than ever before."""
    expected = uninterrupted(server, params)
    chance, statuses, kept = random.Random(0), list[int](), set[Path]()
    for number in range(6):
        child = server.start(params, 1)
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
    assert any("goes on after epoch" in line for line in lines)
    stopped = [line for line in lines if line.startswith("stopped by SIGTERM after step ")]
    assert len(stopped) == statuses.count(1)
    assert all("the same command goes on from " in line for line in stopped)
