"""What ends one of several processes ends all of them, and the same command resumes."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.e2e.run import finetune_model
from pipeline.params.file import Params
from tests.support.machines.launched import (
    CLOSE,
    STAGE,
    TORCHRUN,
    begin,
    difference,
    ended,
    process_of,
    small_params,
    table,
    without_dropout,
)
from tests.support.models.tuned_tones import RUN, results

CHILD = """
import sys
from pathlib import Path

import torch
from features.errors import HeronryError
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.run import finetune_model
from pipeline.params.file import read_params
from pipeline.runtime.launch import joined

loss, calls = EndToEnd.loss, [0]


def spoilt(self, prediction, batch):
    found = loss(self, prediction, batch)
    if not self.training or not ranks.number:
        return found
    calls[0] += 1
    if fault == "memory" and len(batch.ids) > 1:
        raise torch.OutOfMemoryError("no room")
    return found * torch.nan if fault == "nan" and calls[0] == 4 else found


EndToEnd.loss = spoilt
try:
    with joined("cpu") as ranks:
        for fault in sys.argv[1:]:
            calls[0] = 0
            params = read_params(Path("params.yaml"))
            finetune_model(params, "m", "mine", device="cpu", ranks=ranks)
            if ranks.is_first:
                Path("history.csv").write_bytes(Path(HISTORY).read_bytes())
except HeronryError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path) -> Params:
    return small_params(tmp_path, monkeypatch, private_store)


def all_of(launcher: int) -> None:
    """SIGTERM as a scheduler sends it; the launcher passes it on, so that it comes twice."""
    os.killpg(launcher, signal.SIGTERM)


def second_of(launcher: int, number: int) -> None:
    os.kill(process_of(launcher, 1), number)


def interrupted(params: Params, store: Path, end: Callable[[int], None]) -> str:
    """What is said by a run that is ended when it has come further."""
    before = set(store.rglob("step_*"))
    process = begin([*TORCHRUN, *STAGE], params)
    while set(store.rglob("step_*")) <= before and process.poll() is None:
        time.sleep(0.01)
    end(process.pid)
    status, said = ended(process)
    assert status not in (0, -signal.SIGKILL), said
    assert not (RUN / "run.json").exists()
    assert list(store.rglob("step_*"))
    return said


@pytest.mark.slow
def test_as_many_processes_end_with_the_same_bytes(params: Params, private_store: Path) -> None:
    """With dropout and masking, whose draws in all processes are part of a checkpoint."""
    params = dataclasses.replace(params, e2e={**params.e2e, "specaugment": 0.1})
    params.models["m"]["train"] |= {"epochs": 8, "schedule": "plateau"}
    status, said = ended(begin([*TORCHRUN, *STAGE], params))
    assert status == 0, said
    expected = results()
    said = interrupted(params, private_store, all_of)
    assert said.count("stopped by SIGTERM after step") == 1, said
    status, said = ended(begin([*TORCHRUN, *STAGE], params))
    assert status == 0, said
    assert said.count("resumes after epoch") == 1
    assert results() == expected


@pytest.mark.slow
def test_a_checkpoint_is_for_any_number_of_processes(
    params: Params, tmp_path: Path, private_store: Path
) -> None:
    """Killed with two, stopped with two, ended by one."""
    params = without_dropout(params, tmp_path)
    params.models["m"]["train"] |= {"epochs": 8}
    finetune_model(params, "m", "mine", device="cpu")
    history, predictions = table("history.csv"), table("predictions.csv")
    interrupted(params, private_store, partial(second_of, number=signal.SIGKILL))
    stop = partial(second_of, number=signal.SIGTERM)
    said = interrupted(params, private_store, stop)
    assert said.count("resumes after epoch") == said.count("stopped by SIGTERM") == 1, said
    finetune_model(params, "m", "mine", device="cpu")
    assert difference(table("history.csv"), history) < CLOSE
    assert difference(table("predictions.csv"), predictions) < CLOSE


@pytest.mark.slow
def test_a_fault_in_one_process_is_reported_once(params: Params, tmp_path: Path) -> None:
    """What does not fit is cut, and the result stays; a loss that is not finite ends all."""
    params = without_dropout(params, tmp_path)
    params.models["m"]["train"] |= {"epochs": 2}
    finetune_model(params, "m", "mine", device="cpu")
    history = table("history.csv")
    Path("child.py").write_text(
        CHILD.replace("HISTORY", repr(str(RUN / "seed_0/fold_0/history.csv")))
    )
    status, said = ended(begin([*TORCHRUN, "child.py", "memory", "nan"], params))
    assert status != 0
    assert said.count("does not fit the memory of the device") == 1, said
    assert said.count("error: the training loss is nan on a batch") == 1, said
    assert re.search(r"\(process 1 of 2\) \(the last one is .*step_0000000", said), said
    found = Path("history.csv").read_text().replace("\n", ",").strip(",").split(",")
    assert difference(found, history) < CLOSE
