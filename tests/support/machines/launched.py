"""Runs of several processes on this machine, as `accelerate launch` and torchrun start them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import soundfile
import yaml

from pipeline.params.file import Params
from tests.conftest import tone
from tests.contracts.checkpoints import speech_encoder
from tests.support.models.tuned_tones import RUN, Tones, cached, params_of
from tests.support.paths import ROOT

ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--main_process_port", "0"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
STAGE = ["-m", "stages.e2e", "mine", "m"]
TRAIN = {"epochs": 3, "batch_size": 5, "accumulate": 2, "loss": "weighted_ce", "lr": 1e-3}
CLOSE = 1e-5  # by the order of additions alone, over all steps
PATIENCE = 240.0  # seconds, after which processes wait for each other for ever


def small_params(folder: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> Params:
    """31 utterances to learn from in batches of five: two processes never have equal shares.

    Of the last batch, one utterance, one of them has none. A clip that is too short is left out, by
    whichever process has tried it. One network is called once for each length (data2vec).
    """
    corpus = Tones(folder, monkeypatch)
    corpus.write()
    soundfile.write(corpus.root / "0_0.wav", tone(700.0, 0.02), 16_000)
    corpus.prepare()
    slots = {"text": {"tune": "lora"}, "speech": {"lr": 1e-3}}
    params = params_of(folder, slots=slots, save_seconds=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound = speech_encoder.VARIANTS["data2vec"](folder / "data2vec")
    backbones = {**params.backbones, "sound": {"kind": "speech_encoder", **sound}}
    params = dataclasses.replace(params, backbones=backbones)
    params.models["m"]["nonverbal"] = "sound"
    params.models["m"]["train"] |= TRAIN
    cached(params, store, "tone")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return params


def without_dropout(params: Params, folder: Path) -> Params:
    """Each process draws numbers of its own, so that with dropout the curves are not the same."""
    params.models["m"]["args"]["dropout"] = 0.0
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        rates = (name for name, value in config.items() if "drop" in name and value)
        path.write_text(json.dumps(config | dict.fromkeys(rates, 0.0)))
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": None}
    return dataclasses.replace(params, e2e={**params.e2e, "lora": lora})


def begin(command: list[str], params: Params, **environment: str) -> subprocess.Popen[str]:
    """Start a launcher, in a group of its own."""
    Path("params.yaml").write_text(yaml.safe_dump(vars(params)))
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and what all processes have said."""
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    return process.returncode, said


def process_of(launcher: int, rank: int) -> int:
    """The process id of one of those that a launcher has started."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            variables = (path / "environ").read_text()
            if parent == str(launcher) and re.search(rf"(?:^|\0)RANK={rank}\0", variables):
                return int(path.name)
    raise AssertionError(f"the launcher {launcher} has no process {rank}")


def table(name: str) -> list[str]:
    """The cells of a table of the run, row by row."""
    with (RUN / "seed_0/fold_0" / name).open() as file:
        return [cell for row in csv.reader(file) for cell in row]


def difference(found: list[str], expected: list[str]) -> float:
    """The largest between two numbers; words are equal."""
    pairs = zip(found, expected, strict=True)
    return max([0.0, *(abs(float(a) - float(b)) for a, b in pairs if a != b)])
