"""Copies from a device are read only after they are complete, also from the second device."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import features
from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry
from features.backbones.tone import Tone
from features.cache.shard import Row
from features.extraction.batches import Prepared, prepare, prepare_ahead
from features.extraction.extractor import Extractor, Recipe
from features.extraction.joining import Moments
from features.extraction.output import Tally
from features.extraction.plan import ShardPlan
from features.extraction.runner import Runner
from features.process import devices
from features.process.devices import (
    PageLocked,
    device_threads,
    entered,
    fetched,
    full_float32,
    moved,
    without_cudnn_attention,
)
from features.stream import Stream
from pipeline.data.batching import pinned
from pipeline.model.batch import Batch
from pipeline.runs.job import repeatable
from tests.conftest import ManifestMaker
from tests.features.process.test_memory import SHORT_OF_MEMORY


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

    def is_available(self) -> bool:
        """Asked by torch's loader if torch was built for GPUs; without one it pins no memory."""
        return False

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


def test_rows_of_a_shard_outlive_what_they_came_from(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """Page-locked memory is lent for a batch, and rows are kept for the whole of a shard."""
    entry = BackboneEntry("tone", "tone", store_dtype="float32")
    output = Extractor(Recipe(entry, tmp_path, 1.0), "cpu").own
    manifest = make_manifest([0.2, 0.3])
    shard = output.begin(next(iter(ShardPlan.of(manifest, "audio", None))))
    item = prepare(output.backbone, list(manifest))
    (result,) = output.runner.launch(item)
    output.keep(shard, item, [result], Tally())
    kept = [row.frames for row in shard.rows.values() if isinstance(row, Row)]
    assert len(kept) == 2
    expected = [frames.copy() for frames in kept]
    assert result.stream is not None
    with torch.inference_mode():
        result.stream.values.fill_(torch.nan)
    assert all(np.array_equal(*pair) for pair in zip(kept, expected, strict=True))
    frames = torch.ones(3, 2, dtype=torch.float64)
    moments = Moments(frames)
    frames.zero_()
    assert moments.first().tolist() == [[1.0, 1.0]]


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
    monkeypatch.setattr(extractor.own.runner, "_move", lambda: None)
    monkeypatch.setattr(Prepared, "pin_memory", lambda self: self)
    tally = Tally()
    assert sum(extractor.run(ShardPlan.of(manifest, "audio", None), tally, seconds=0.5)) == 2
    assert tally.computed == 2
    assert set(seen) == {1}


def test_a_process_that_copies_rows_touches_no_device(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, recipe = make_manifest([0.2, 0.3]), Recipe(BackboneEntry("tone", "tone"), tmp_path)
    other = dataclasses.replace(manifest, utterances=manifest.utterances[::-1])
    assert (
        sum(Extractor(recipe).run(ShardPlan.of(manifest, "audio", None), Tally(), seconds=0.5)) == 2
    )
    entered: list[torch.device] = []

    def enter(device: torch.device) -> contextlib.nullcontext[None]:
        entered.append(device)
        return contextlib.nullcontext()

    for module in ("batches", "output", "runner"):
        monkeypatch.setattr(f"features.extraction.{module}.entered", enter)
    tally = Tally()
    shards = list(ShardPlan.of(other, "audio", None))
    assert sum(Extractor(recipe, "cuda:1").run(shards, tally, seconds=None)) == 2
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


def test_attention_needs_no_plan_for_each_shape() -> None:
    enabled: Any = torch.backends.cuda.cudnn_sdp_enabled
    tone = Runner(Tone(), torch.device("meta"), "float32")
    for context in (repeatable("cpu"), tone.entered(), without_cudnn_attention()):
        assert enabled()  # as torch has it
        with context:
            assert not enabled()
    assert enabled()


def test_without_page_locked_memory_a_result_is_complete_at_once(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_TO_HOST", PageLocked(limit=8))
    device, numbers = torch.device("cuda:1"), torch.arange(2.0)
    (locked,), arrived = fetched((numbers,), device)
    with entered(device):
        assert arrived is not None
        assert not locked.any()
        (other,), _ = fetched((numbers,), device)  # the first one is still lent
        assert torch.equal(other, numbers)
        arrived.synchronize()
    assert torch.equal(locked, numbers)
    assert not gpus.queues[1]


@pytest.fixture
def locked_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of all blocks that were made, or -1 where unused ones were dropped."""
    made: list[int] = []
    monkeypatch.setattr(devices, "_drop_unused", lambda: made.append(-1))

    def make(tensor: Tensor) -> Tensor:
        made.append(tensor.nbytes)
        return torch.empty_like(tensor)

    monkeypatch.setattr(devices, "_page_locked", make)
    return made


def test_page_locked_memory_has_a_limit(locked_memory: list[int]) -> None:
    """Blocks count as torch rounds them up, and as long as it keeps them for later."""
    lender = PageLocked(limit=64)
    tensor = torch.arange(20, dtype=torch.uint8)  # in blocks of 32
    first, second = lender.like(tensor), lender.like(tensor)
    assert first is not None
    assert second is not None
    assert lender.like(tensor) is None
    assert lender.copy(tensor) is tensor
    assert lender.like(torch.empty(0)) is None
    del first
    assert torch.equal(lender.copy(tensor), tensor)  # in the first one's block
    assert locked_memory == [20, 20, 20]
    small = tensor[:5].clone()  # 8: there is room only if unused blocks are dropped
    kept = [lender.like(small) for _ in range(5)]
    assert [each is not None for each in kept] == [True] * 4 + [False]
    assert locked_memory == [20, 20, 20, -1, 5, 5, 5, 5]
    kept.clear()
    del second
    whole = lender.like(torch.empty(64, dtype=torch.uint8))
    assert whole is not None
    assert locked_memory[-2:] == [-1, 64]
    assert lender.like(torch.empty(65, dtype=torch.uint8)) is None


def test_memory_that_the_system_does_not_lock_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = list(SHORT_OF_MEMORY[3:4])

    def refuse(_: Tensor) -> Tensor:
        raise said[0]

    monkeypatch.setattr(devices, "_page_locked", refuse)
    lender = PageLocked(limit=64)
    for _ in range(5):
        assert lender.copy(numbers := torch.arange(10)) is numbers
    said[0] = RuntimeError("invalid argument")
    with pytest.raises(RuntimeError, match="invalid argument"):
        lender.copy(torch.arange(5))


def test_batches_and_inputs_are_made_in_page_locked_memory(locked_memory: list[int]) -> None:
    tensor = torch.arange(3)
    batch = Batch({"text": Stream(tensor, tensor > 1)}, tensor, ("a",))
    found = pinned(batch)
    assert locked_memory == [24, 3, 24]
    assert found.labels is not None
    assert found.labels is not tensor
    assert torch.equal(found.labels, tensor)
    assert torch.equal(found.streams["text"].mask, tensor > 1)
    inputs = Inputs(("a",), {"x": tensor}).pin_memory()
    assert torch.equal(inputs.tensors["x"], tensor)
    assert locked_memory == [24, 3, 24, 24]


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
def test_results_of_a_gpu_are_complete_when_they_are_read() -> None:
    """Behind a queue of products that takes the device a while."""
    for number in range(torch.cuda.device_count()):
        place = torch.device("cuda", number)
        with entered(place):
            # Some 50 ms of a GPU; a CPU that emulates one takes seconds for less.
            size, times = (1024, 50) if torch.version.cuda is None else (4096, 20)
            large = torch.randn(size, size, device=place)
            for _ in range(times):
                large = large @ large / size
            ones = torch.ones(1 << 20, device=place) + large[0, 0] * 0
            copies, arrived = fetched((ones,), place)
            assert arrived is not None
        arrived.synchronize()  # outside, as the thread that keeps results does
        assert bool((copies[0] == 1).all())
        assert copies[0].is_pinned()
        assert bool((moved(ones * 2, "cpu") == 2).all())


@pytest.mark.gpu
def test_a_gpu_locks_no_more_pages_than_its_limit() -> None:
    """Sizes that grow and shrink, some lent at the same time; those of other tests count too."""
    before = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
    lender, place, lent = PageLocked(limit=1 << 24), torch.device("cuda"), deque[Tensor](maxlen=3)
    for size in (1 << 20, 5 << 20, 9 << 20, 3 << 20, 1 << 10, 16 << 20, 17 << 20, 2 << 20) * 3:
        tensor = torch.randint(255, (size,), dtype=torch.uint8)
        lent.append(lender.copy(tensor))
        assert torch.equal(moved(lent[-1], place).cpu(), tensor)
        held = torch.cuda.host_memory_stats()["allocated_bytes.current"]
        assert held <= before + 2 * lender.limit  # a block is free once its copy is complete
    assert not lender.copy(torch.empty(17 << 20, dtype=torch.uint8)).is_pinned()


@pytest.mark.gpu
def test_products_on_a_gpu_are_rounded_only_outside() -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 256, 256, device="cuda")
    kernel = torch.randn(256, 256, 3, device="cuda")
    products: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, k: x @ k[..., 0],
        torch.nn.functional.conv1d,
    ]
    for product in products:
        exact = product(values.double(), kernel.double())
        errors = []
        with tf32_on():
            for context in (full_float32(), repeatable("cuda"), contextlib.nullcontext()):
                with context:
                    found = product(values, kernel)
                errors.append(float((found - exact).norm() / exact.norm()))
        assert max(errors[:2]) < 1e-6
        if torch.cuda.get_device_capability() >= (8, 0):
            assert errors[2] > 1e-5  # so the switch was worth it


CONTEXTS = """
import sys, torch
from pathlib import Path
from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.extraction.extract import Options, extract
from features.settings.locations import device, devices

found = devices(",".join(sys.argv[2:])) if sys.argv[2:] else (device(),)
assert not any(map(torch._C._cuda_hasPrimaryContext, range(torch.cuda.device_count()))), "asking"
folder, options = Path(sys.argv[1]), Options(devices=found, batch_seconds=1.0)
manifest, entry = Manifest.read(folder), BackboneEntry("tone", "tone", store_dtype="float32")
done = extract(manifest, entry, folder / "out", store=folder / "store", options=options)
assert done.computed == 4 and not done.rejected
print([n for n in range(torch.cuda.device_count()) if torch._C._cuda_hasPrimaryContext(n)])
"""


@pytest.mark.gpu
def test_a_process_has_a_context_where_it_computes_and_nowhere_else(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """The last GPU; the first one by default; and of several none, as other processes compute."""
    last = torch.cuda.device_count() - 1
    cases = [([str(last)], [last]), ([], [0]), (["0", str(last)], [])]
    for number, (arguments, expected) in enumerate(cases):
        folder = tmp_path / str(number)
        make_manifest([0.5] * 4, shard_seconds=1.0).write(folder)
        words = [sys.executable, "-c", CONTEXTS, str(folder), *arguments]
        environment = {name: each for name, each in os.environ.items() if name != "HERONRY_DEVICE"}
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.splitlines()[-1] == str(expected)


@pytest.mark.gpu
def test_a_device_is_entered_and_left() -> None:
    last = torch.cuda.device_count() - 1
    with entered(f"cuda:{last}"), device_threads(1) as pool:
        assert torch.cuda.current_device() == last
        assert pool.submit(torch.cuda.current_device).result() == last
    assert torch.cuda.current_device() == 0
