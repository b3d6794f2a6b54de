"""Several processes share a batch and give the result of one process."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from features.errors import HeronryError, ParamsError
from pipeline.data.targets import TargetReader
from pipeline.e2e.run import finetune_model
from pipeline.e2e.source import LiveExamples
from pipeline.model.outputs import Outputs
from pipeline.params.training import TrainParams
from pipeline.runs.layout import HISTORY
from pipeline.runtime import launch
from pipeline.runtime.launch import LAUNCH, joined, relaunch
from pipeline.training.fitting import FillerBatch
from pipeline.training.loop import begin as beginning
from pipeline.training.loop import micro_step
from pipeline.training.ranks import ALONE, LostProcessError, Ranks
from tests.conftest import ManifestMaker
from tests.support.corpora.rated import rate
from tests.support.machines.launched import (
    ACCELERATE,
    CLOSE,
    STAGE,
    begin,
    difference,
    ended,
    small_params,
    table,
    without_dropout,
)
from tests.support.models.small_live import entry_of, live_of, tuned_model
from tests.support.models.small_live import without_dropout as dropout_off
from tests.support.models.tuned_tones import RUN, results

SECONDS = [0.3, 0.5, 0.4, 0.35, 0.42]


@pytest.mark.slow
def test_two_processes_show_the_loss_curve_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path
) -> None:
    """By the command that DVC calls."""
    params = without_dropout(small_params(tmp_path, monkeypatch, private_store), tmp_path)
    finetune_model(params, "m", "mine", device="cpu")
    alone = json.loads((RUN / "run.json").read_text())
    tables = {name: table(name) for name in ("history.csv", "predictions.csv", "conditions.csv")}
    history = tables["history.csv"]
    files = results().keys()
    losses = [float(loss) for loss in history[HISTORY.index("train_loss") :: len(HISTORY)][1:]]
    assert losses == sorted(losses, reverse=True)
    launcher = {LAUNCH: shlex.join([*ACCELERATE, "--multi_gpu"])}
    status, said = ended(begin([sys.executable, *STAGE], params, **launcher))
    assert status == 0, said
    assert said.count("1 of 48 utterances are left out") == 1
    assert said.count("kept epoch") == 1
    run = json.loads((RUN / "run.json").read_text())
    assert run["processes"] == 2
    for key in ("dropped", "utterances", "parameters", "parameters_total", "slots"):
        assert run[key] == alone[key], key
    for name, expected in tables.items():
        assert difference(table(name), expected) < CLOSE, name
    assert results().keys() == files | {"leaks.json", "model_card.md"}
    speech = load_file(RUN / "seed_0/fold_0/backbones/speech/model.safetensors")
    assert all(bool(value.isfinite().all()) for value in speech.values())


@pytest.mark.slow
def test_two_processes_share_a_loss_that_is_no_mean_over_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path
) -> None:
    """1 - CCC of all rows of a batch, although each has some of them, and some lack values."""
    params = without_dropout(small_params(tmp_path, monkeypatch, private_store), tmp_path)
    rate(Path("data/mine"), gaps=4)
    params.models["m"]["train"] |= {
        "batch_size": 8,
        "targets": ["classes", "votes", "attributes", "gender"],
        "monitor": "joint",
        "weighting": "uncertainty",
    }
    finetune_model(params, "m", "mine", device="cpu")
    tables = {name: table(name) for name in ("history.csv", "predictions.csv", "conditions.csv")}
    targets = json.loads((RUN / "run.json").read_text())["targets"]
    launcher = {LAUNCH: shlex.join([*ACCELERATE, "--multi_gpu"])}
    status, said = ended(begin([sys.executable, *STAGE], params, **launcher))
    assert status == 0, said
    for name, expected in tables.items():
        assert difference(table(name), expected) < CLOSE, name
    assert json.loads((RUN / "run.json").read_text())["targets"] == targets


@given(st.lists(st.integers()), st.integers(1, 9))
def test_every_row_is_in_one_share(rows: list[int], count: int) -> None:
    shares = [Ranks(count, number).share(rows) for number in range(count)]
    assert sorted(row for share in shares for row in share) == sorted(rows)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_alone_nothing_is_sent() -> None:
    rows, weight = [1, 2], torch.ones(2)
    assert ALONE.share(rows) is rows
    assert ALONE.gather(rows) == [rows]
    assert ALONE.broadcast(rows) is rows
    assert ALONE.broadcast_tensors({"w": weight})["w"] is weight
    assert ALONE.gather_from(lambda: 3, (HeronryError,)) == [3]
    ALONE.wait()


@pytest.fixture
def live(make_manifest: ManifestMaker, tmp_path: Path) -> LiveExamples:
    entries = {"text": entry_of("bert", tmp_path), "speech": entry_of("data2vec", tmp_path)}
    built: dict[str, Any] = {slot: entry.build() for slot, entry in entries.items()}
    return live_of(make_manifest(SECONDS), built)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_gradients_of_shares_are_that_of_the_batch(live: LiveExamples, count: int) -> None:
    """Each as one of the processes computes it; with seven, two of them stand in."""
    params = TrainParams(loss="weighted_ce")
    found = []
    for ranks in ([ALONE], [Ranks(count, number) for number in range(count)]):
        model = tuned_model(live)
        dropout_off(model)
        training = beginning(model, live, live.labels, params, seed=0)
        model.train()
        batches = [dataclasses.replace(live, ranks=each).batch(live.labels) for each in ranks]
        sizes = [micro_step(training, batch).size for batch in batches]
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((sum(sizes), gradients))
        stand_ins = sum(isinstance(batch, FillerBatch) for batch in batches)
        assert stand_ins == max(0, len(ranks) - len(live.labels)) == sizes.count(0.0)
    (size, whole), (total, parts) = found
    assert total == pytest.approx(size)
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for name, gradient in whole.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-4, atol=1e-5 * largest), name


def test_dialogues_are_not_cut(live: LiveExamples) -> None:
    dialogues = [live.labels[:2], live.labels[2:3], live.labels[3:]]
    batches = [
        dataclasses.replace(live, ranks=Ranks(2, number)).dialogue_batch(dialogues)
        for number in range(2)
    ]
    assert [batch.ids for batch in batches] == [("u0", "u1", "u3", "u4"), ("u2",)]
    assert [batch.inputs["text"].ids for batch in batches] == [b.ids for b in batches]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_know_their_places_in_the_targets_of_the_batch(
    live: LiveExamples, count: int
) -> None:
    """Of utterances and of dialogues, of which the longest may be another process's."""
    outputs = Outputs((), ("arousal",), (), {"arousal": (0.0, 9.0)})
    rated = [
        dataclasses.replace(label, values={"arousal": float(number)})
        for number, label in enumerate(live.labels)
    ]
    reader = TargetReader(("attributes",), outputs)
    cached = dataclasses.replace(live.cached, labels=rated, targets=reader)
    dialogues = [rated[:1], rated[1:4], rated[4:]]
    for number in range(2):
        counted: list[int] = []
        for rank in range(count):
            own = dataclasses.replace(live, cached=cached, ranks=Ranks(count, rank))
            batch = own.dialogue_batch(dialogues) if number else own.batch(rated)
            targets = batch.targets
            assert targets is not None
            assert targets.present.shape == batch.present.shape
            part, whole = targets.scored(), targets.whole
            assert part.places is not None
            assert whole is not None
            mine = part.places >= 0
            assert bool(mine.all()) != isinstance(batch, FillerBatch)
            assert part.values is not None
            assert whole.values is not None
            assert torch.equal(whole.values[part.places[mine]], part.values[mine])
            counted += part.places[mine].tolist()
        assert sorted(counted) == list(range(len(rated)))


def test_batch_norm_is_refused_with_several_processes(live: LiveExamples) -> None:
    model = tuned_model(live)
    model.fusion.norm = torch.nn.BatchNorm1d(3)
    with pytest.raises(ParamsError, match=r"2 processes: the batch norm fusion.norm .*one process"):
        Ranks(2).broadcast_weights(model)
    ALONE.broadcast_weights(model)


class BecameError(Exception):
    """In place of another program."""


def test_the_stage_becomes_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what the launcher starts does not become a launcher again."""

    def become(program: str, words: list[str]) -> None:
        assert program.endswith(sys.executable.rpartition("/")[2])
        assert LAUNCH not in os.environ
        raise BecameError(words)

    monkeypatch.setattr(launch, "_become", become)
    relaunch("stages.e2e", ["a", "b"])
    monkeypatch.setenv(LAUNCH, f"{sys.executable} -m some.launcher --ids '0, 1'")
    with pytest.raises(BecameError) as caught:
        relaunch("stages.e2e", ["a", "b"])
    options = ["-m", "some.launcher", "--ids", "0, 1"]
    assert caught.value.args[0] == [sys.executable, *options, "-m", "stages.e2e", "a", "b"]
    relaunch("stages.e2e", ["a", "b"])
    monkeypatch.setenv(LAUNCH, "no-such-launcher")
    with pytest.raises(ParamsError, match=r"no program 'no-such-launcher'; expected a launcher"):
        relaunch("stages.e2e", ["a", "b"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(LAUNCH, "no-such-launcher")
    relaunch("stages.e2e", ["a", "b"])


@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("MIXED_PRECISION", "bf16", r"MIXED_PRECISION=bf16; .*`e2e.precision`"),
        ("USE_DEEPSPEED", "true", "DEEPSPEED=true; .*data parallel training is .*--multi_gpu"),
        ("USE_FSDP", "true", "FSDP=true; .*data parallel training is .*--multi_gpu"),
    ],
)
def test_what_params_decide_is_not_for_the_launcher(
    monkeypatch: pytest.MonkeyPatch, count: str, name: str, value: str, remedy: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(ParamsError, match=remedy), joined("cpu"):
        pass


def test_too_little_memory_is_not_a_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buckets in which gradients are sent need memory too."""
    ranks, said = Ranks(2, 0), [RuntimeError("CUDA error: out of memory")]

    def fail(*_: Any, **__: Any) -> None:
        raise said[0]

    monkeypatch.setattr(torch.distributed, "all_gather_object", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        ranks.gather(1)
    said[0] = RuntimeError("Connection closed by peer")
    with pytest.raises(LostProcessError, match="process 0 of 2 waited for the others"):
        ranks.gather(1)
