"""Copies from a device are read only after they are complete, also from the second device."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import features
from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry
from features.backbones.tone import Tone
from features.extraction.batches import Prepared, prepare, prepare_ahead
from features.extraction.extractor import Extractor, Recipe, Tally
from features.extraction.plan import ShardPlan
from features.extraction.runner import Runner
from features.process import devices
from features.process.devices import device_threads, entered, fetched, moved
from features.stream import Stream
from pipeline.model.batch import Batch
from pipeline.runs.job import repeatable
from tests.conftest import ManifestMaker

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class FakeGpus:
    """Devices whose copies are made only when somebody waits for their stream."""

    def __init__(self) -> None:
        self.current = 0
        self.queues: dict[int, list[Callable[[], Any]]] = {0: [], 1: []}

    @contextlib.contextmanager
    def device(self, place: torch.device) -> Iterator[None]:
        before, self.current = self.current, place.index
        try:
            yield
        finally:
            self.current = before

    def current_stream(self, place: torch.device) -> int:
        return place.index

    def Event(self) -> FakeEvent:  # noqa: N802  as in torch.cuda
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, gpus: FakeGpus) -> None:
        self.gpus, self.stream = gpus, gpus.current

    def record(self, stream: int | None = None) -> None:
        self.stream = self.gpus.current if stream is None else stream

    def synchronize(self) -> None:
        while self.gpus.queues[self.stream]:
            self.gpus.queues[self.stream].pop(0)()


def tf32() -> tuple[bool, bool]:
    """Whether convolutions, and matrix products, may use it."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@contextlib.contextmanager
def tf32_on() -> Iterator[None]:
    """As torch is in a container of NVIDIA, without a GPU too."""
    before = tf32()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """Two of them; what is on the second is in truth in the computer's memory."""
    fake = FakeGpus()

    class Landing(Tensor):
        def copy_(self, source: Tensor, non_blocking: bool = False) -> Tensor:
            assert non_blocking
            fake.queues[1].append(lambda: self.fill_from(source))
            return self

        @torch.inference_mode()
        def fill_from(self, source: Tensor) -> None:
            Tensor.copy_(self, source)

    monkeypatch.setattr(torch, "get_device_module", lambda _: fake)
    monkeypatch.setattr(devices, "_page_locked", lambda t: torch.zeros_like(t).as_subclass(Landing))
    monkeypatch.setattr(Inputs, "to", lambda self, _: self)
    return fake


def test_results_of_the_second_device_are_read_after_their_copy(
    gpus: FakeGpus, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Watched(Tone):
        def __call__(self, inputs: Inputs) -> Stream:
            seen.append(gpus.current)
            assert tf32() == (False, False)
            return super().__call__(inputs)

    monkeypatch.setattr(Runner, "_move", lambda _: None)
    backbone = Watched()
    item = prepare(backbone, list(make_manifest([0.2, 0.3])))
    assert item.inputs is not None
    expected = Tone()(item.inputs)
    runner = Runner(backbone, torch.device("cuda:1"), "float32")
    with tf32_on():
        (result,) = runner.launch(item)
        assert tf32() == (True, True)
    assert result.stream is not None
    assert not result.stream.mask.any()  # still on its way
    stream = result.wait()
    assert stream is not None
    assert torch.equal(stream.values, expected.values)
    assert torch.equal(stream.mask, expected.mask)
    assert seen == [1]
    assert gpus.current == 0


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
def test_the_thread_that_keeps_results_waits_on_their_device(
    gpus: FakeGpus, make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first GPU, where threads begin, waiting would leave a context."""
    seen: list[int] = []
    wait = FakeEvent.synchronize

    def synchronize(event: FakeEvent) -> None:
        seen.append(gpus.current)
        wait(event)

    monkeypatch.setattr(FakeEvent, "synchronize", synchronize)
    manifest, recipe = make_manifest([0.2, 0.3]), Recipe(BackboneEntry("tone", "tone"), tmp_path)
    extractor = Extractor(recipe, "cuda:1")
    monkeypatch.setattr(extractor.runner, "_move", lambda: None)
    monkeypatch.setattr(Prepared, "pin_memory", lambda self: self)
    tally = Tally()
    assert sum(extractor.run(list(ShardPlan.of(manifest, "audio")), tally)) == 2
    assert tally.computed == 2
    assert set(seen) == {1}


def test_a_process_that_copies_rows_touches_no_device(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, recipe = make_manifest([0.2, 0.3]), Recipe(BackboneEntry("tone", "tone"), tmp_path)
    other = dataclasses.replace(manifest, utterances=manifest.utterances[::-1])
    assert sum(Extractor(recipe).run(list(ShardPlan.of(manifest, "audio")), Tally())) == 2
    entered: list[torch.device] = []

    def enter(device: torch.device) -> contextlib.nullcontext[None]:
        entered.append(device)
        return contextlib.nullcontext()

    for module in ("batches", "extractor", "runner"):
        monkeypatch.setattr(f"features.extraction.{module}.entered", enter)
    tally = Tally()
    shards = list(ShardPlan.of(other, "audio"))
    assert sum(Extractor(recipe, "cuda:1").run(shards, tally, copied=True)) == 2
    assert (tally.copied, tally.computed) == (2, 0)
    assert {device.type for device in entered} == {"cpu"}


def test_training_has_no_tf32() -> None:
    with tf32_on():
        for error in (None, ZeroDivisionError("in the middle")):
            with contextlib.suppress(ZeroDivisionError), repeatable("cpu"):
                assert tf32() == (False, False)
                if error is not None:
                    raise error
            assert tf32() == (True, True)


def test_users_of_a_device_have_entered_it(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page-locked memory, and the threads that ask for it, belong to the device in use."""
    second, seen = torch.device("cuda:1"), list[Any]()
    monkeypatch.setattr(
        "features.extraction.batches.DataLoader",
        lambda *_, **__: iter(lambda: seen.append(gpus.current), 1),
    )
    assert list(prepare_ahead(Tone(), [], workers=0, device=second)) == []
    with repeatable("cuda:1"):
        seen.append(gpus.current)
    assert (seen, gpus.current) == ([1, 1], 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda index: seen.append((index, threading.get_ident()))
    )
    with device_threads(1) as pool:
        own = pool.submit(threading.get_ident).result()
    assert seen[-1] == (1, own)
    with entered("cpu"), entered("cuda"):  # none, and the one that is current
        assert gpus.current == 0


def test_copies_to_the_host_block(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def to(tensor: Tensor, place: Any, *_: Any, non_blocking: bool = False) -> Tensor:
        asked.append((str(place), non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "to", to)
    tensor = torch.zeros(2, 3)
    stream = Stream(tensor, tensor)
    batch = Batch({"speech": stream}, tensor, (), {"text": Inputs((), {"tokens": tensor})})
    for place in ("cpu", "mps", "xpu", "cuda:1"):
        batch.to(place)
        assert asked == [(place, place == "cuda:1")] * 4
        asked.clear()
    for place in ("mps", "xpu"):
        copies, arrived = fetched((tensor,), torch.device(place))
        assert (len(copies), arrived) == (1, None)
        assert asked.pop() == ("cpu", False)


def test_only_one_module_makes_non_blocking_copies() -> None:
    root = Path(features.__file__).parents[1]
    found = [
        path.relative_to(root).as_posix()
        for folder in ("features", "pipeline", "stages")
        for path in (root / folder).rglob("*.py")
        if "non_blocking" in path.read_text(encoding="utf-8")
    ]
    assert found == ["features/process/devices.py"]


@pytest.mark.gpu
@needs_gpu
def test_results_of_a_gpu_are_complete_when_they_are_read() -> None:
    """Behind a queue of products that takes the device a while."""
    for number in range(torch.cuda.device_count()):
        place = torch.device("cuda", number)
        with entered(place):
            large = torch.randn(4096, 4096, device=place)
            for _ in range(20):
                large = large @ large / 4096
            ones = torch.ones(1 << 20, device=place) + large[0, 0] * 0
            copies, arrived = fetched((ones,), place)
            assert arrived is not None
        arrived.synchronize()  # outside, as the thread that keeps results does
        assert bool((copies[0] == 1).all())
        assert copies[0].is_pinned()
        assert bool((moved(ones * 2, "cpu") == 2).all())


@pytest.mark.gpu
@needs_gpu
def test_a_device_is_entered_and_left() -> None:
    last = torch.cuda.device_count() - 1
    with entered(f"cuda:{last}"), device_threads(1) as pool:
        assert torch.cuda.current_device() == last
        assert pool.submit(torch.cuda.current_device).result() == last
    assert torch.cuda.current_device() == 0
