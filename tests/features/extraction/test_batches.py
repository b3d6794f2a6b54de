"""Batches keep their budget, and inputs arrive in order from any number of processes."""

from __future__ import annotations

import pickle  # noqa: TID251  as processes that prepare inputs get a backbone
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.backbone.base import Pooled
from features.backbones.tone import Tone
from features.corpus.utterance import Utterance
from features.errors import HeronryError, ManifestError, UtteranceError
from features.extraction.batches import (
    BATCH_SECONDS,
    default_batch_seconds,
    default_workers,
    form_batches,
    prepare,
    prepare_ahead,
)
from tests.conftest import ManifestMaker

LENGTHS = st.lists(st.floats(0.1, 30.0), max_size=30)


def utterances(seconds: list[float]) -> list[Utterance]:
    return [Utterance(f"u{i}", audio="x.wav", seconds=s) for i, s in enumerate(seconds)]


class Windowed(Tone):
    window_seconds = 30.0


@given(LENGTHS, st.floats(0.0, 100.0))
def test_every_utterance_is_in_one_batch_within_the_budget(
    seconds: list[float], budget: float
) -> None:
    rows = utterances(seconds)
    batches = list(form_batches(Tone(), rows, seconds=budget))
    assert sorted(u.id for batch in batches for u in batch) == sorted(u.id for u in rows)
    for batch in batches:
        padded = len(batch) * max(u.seconds or 0.0 for u in batch)
        assert len(batch) == 1 or padded <= budget
    firsts = [batch[0].seconds or 0.0 for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


@given(LENGTHS, st.floats(0.0, 100.0), st.randoms())
def test_batches_do_not_depend_on_the_order(
    seconds: list[float], budget: float, random: object
) -> None:
    rows = utterances(seconds)
    before = list(form_batches(Tone(), rows, seconds=budget))
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert list(form_batches(Tone(), rows, seconds=budget)) == before


def test_windows_are_what_a_network_pads_to() -> None:
    sizes = [len(batch) for batch in form_batches(Windowed(), utterances([1.0] * 5), seconds=60.0)]
    assert sizes == [2, 2, 1]
    sizes = [len(batch) for batch in form_batches(Tone(), utterances([1.0] * 5), seconds=60.0)]
    assert sizes == [5]


def test_budget_of_zero_gives_single_utterances() -> None:
    sizes = [len(batch) for batch in form_batches(Tone(), utterances([1.0] * 3), seconds=0.0)]
    assert sizes == [1, 1, 1]


class Small(Tone):
    """One clip alone is too little work for a CPU."""

    cpu_batch_seconds = 20.0


CPU = torch.device("cpu")


def test_on_a_cpu_the_backbone_says_how_much_is_worth_a_batch() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert default_batch_seconds(Tone(), cpu) == 0
    assert default_batch_seconds(Small(), cpu) == 20
    assert default_batch_seconds(Pooled(Small(), "mean"), cpu) == 20
    assert default_batch_seconds(Tone(), cuda) == default_batch_seconds(Small(), cuda)
    assert default_batch_seconds(Small(), cuda) == BATCH_SECONDS


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_prepared_in_order_wherever(make_manifest: ManifestMaker, workers: int) -> None:
    rows = list(make_manifest([0.1 * (1 + i % 7) for i in range(20)]))
    rows[3] = Utterance("words", text="no audio")
    batches = [rows[i : i + 3] for i in range(0, 20, 3)]
    backbone = Tone()
    found = list(prepare_ahead(backbone, batches, workers=workers, device=CPU))
    for batch, item in zip(batches, found, strict=True):
        expected = prepare(backbone, batch)
        assert item.utterances == expected.utterances
        assert item.rejected == expected.rejected
        assert item.inputs is not None
        assert expected.inputs is not None
        for name, tensor in expected.inputs.tensors.items():
            assert torch.equal(item.inputs.tensors[name], tensor)
    assert found[1].rejected == {"words": "has no audio"}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_errors_that_stop_an_extraction_are_passed_on(workers: int) -> None:
    gone = [Utterance("gone", audio="/nowhere/at/all.wav", seconds=1.0)]
    (item,) = prepare_ahead(Tone(), [gone], workers=workers, device=CPU)
    assert isinstance(item.error, ManifestError)
    assert "/nowhere/at/all.wav" in str(item.error)


def test_batches_are_formed_only_as_needed(make_manifest: ManifestMaker) -> None:
    asked = 0

    def batches() -> Iterator[list[Utterance]]:
        nonlocal asked
        for utterance in make_manifest([0.1] * 10):
            asked += 1
            yield [utterance]

    next(prepare_ahead(Tone(), batches(), workers=0, device=CPU))
    assert asked <= 2


def test_default_number_of_processes() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert default_workers(Tone(), cpu, 10.0) == 0
    assert default_workers(Tone(), cpu, 1e6) >= 1
    network = Tone()
    network.network = torch.nn.Linear(1, 1)  # type: ignore[attr-defined]
    assert default_workers(network, cpu, 1e6) == 0
    assert default_workers(network, cuda, 1e6) >= 1


@pytest.mark.parametrize(("devices", "each"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_devices_share_the_cores(devices: int, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(6)))
    monkeypatch.setattr("features.extraction.batches.SHARED_MEMORY", Path("/nowhere/at/all"))
    assert default_workers(Tone(), torch.device("cuda"), 1e6, sharing=devices) == each


@pytest.mark.parametrize("error", [UtteranceError("a", "b"), ManifestError("gone")])
def test_errors_can_be_sent_between_processes(error: HeronryError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
