"""Forms batches of utterances and prepares their inputs ahead of the device.

Batches are formed inside a shard, longest clips first, up to a budget of padded seconds, so that a
shard's content does not depend on what ran before it. Worker processes prepare inputs, in order,
while the device computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from features.backbone.base import Backbone, Inputs, innermost, module_of, padded_seconds
from features.backbone.windows import Window, Windowed, windowed_in
from features.corpus.utterance import Utterance
from features.errors import CacheError, HeronryError, UtteranceError
from features.process.devices import entered
from features.process.memory import out_of_memory, too_large
from features.process.workers import end_with_parent, sigint_blocked

BATCH_SECONDS = 480.0  # padded, on an accelerator: 16 windows of Whisper
WORTH_WORKERS = 200.0  # seconds of audio; below, starting processes costs more than it saves
MAX_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")  # through which batches come from the workers
SHARED_MEMORY_BYTES = 512 * 2**20  # that each extraction needs; containers often have 64 MiB


@dataclass(frozen=True)
class Prepared:
    """A prepared batch.

    Attributes:
        utterances: Utterances of `inputs`, in that order.
        inputs: Inputs of the backbone; None if no utterance could be used.
        rejected: Reasons by id of the other utterances.
        error: Error that stops the extraction, such as a missing file.
    """

    utterances: tuple[Utterance, ...]
    inputs: Inputs | None
    rejected: dict[str, str]
    error: HeronryError | None = None

    @property
    def empty(self) -> bool:
        """Whether it was made of no utterances."""
        return not self.utterances and not self.rejected and self.error is None

    def pin_memory(self) -> Self:
        """A copy in page-locked memory (called by the loader)."""
        inputs = None if self.inputs is None else self.inputs.pin_memory()
        return type(self)(self.utterances, inputs, self.rejected, self.error)


def prepare(backbone: Backbone, batch: Sequence[Utterance]) -> Prepared:
    """Inputs of a batch; utterances that cannot be used are left out, with their reasons."""
    rest = list(batch)
    rejected: dict[str, str] = {}
    while rest:
        try:
            return Prepared(tuple(rest), backbone.prepare(rest), rejected)
        except UtteranceError as error:
            rejected[error.id] = error.reason
            rest = [utterance for utterance in rest if utterance.id != error.id]
        except HeronryError as error:
            return Prepared((), None, rejected, error)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return _one_by_one(backbone, rest, rejected)
    return Prepared((), None, rejected)


def _one_by_one(
    backbone: Backbone, batch: Sequence[Utterance], rejected: dict[str, str]
) -> Prepared:
    """A batch that is too large for this machine's memory, without utterances too large alone."""
    if len(batch) == 1:
        return Prepared(
            (), None, {**rejected, batch[0].id: too_large_for("this machine", backbone, batch[0])}
        )
    for utterance in batch:
        rejected |= prepare(backbone, [utterance]).rejected
    rest = [utterance for utterance in batch if utterance.id not in rejected]
    if len(rest) < len(batch):
        prepared = prepare(backbone, rest)
        return dataclasses.replace(prepared, rejected=rejected | prepared.rejected)
    fault = CacheError(
        f"the inputs of {len(batch)} utterances do not fit the memory of this machine together: "
        "set --batch-seconds to less, or --workers to fewer"
    )
    return Prepared((), None, rejected, fault)


def too_large_for(device: torch.device | str, backbone: Backbone, utterance: Utterance) -> str:
    """Reason for rejecting an utterance, or one of its windows, that does not fit by itself."""
    if backbone.reads in ("text", "asr"):
        return too_large(device, f"{len(utterance.words(backbone.reads) or '')} characters")
    what, entry = f"{utterance.seconds or 0.0:.1f} s of audio", "in the backbone's entry"
    if windowed_in(backbone) is None:
        return too_large(device, what, f"set `long: window` {entry}, which computes it in windows")
    if isinstance(utterance, Window):
        what = f"a window of {what}"
    return too_large(device, what, f"set `window_seconds` {entry} to less")


def form_batches(
    backbone: Backbone, utterances: Iterable[Utterance], *, seconds: float
) -> Iterator[list[Utterance]]:
    """Batches of similar lengths and at most `seconds` of padded audio, the longest first.

    A budget of 0 gives batches of one utterance.
    """
    sizes = {utterance: padded_seconds(backbone, utterance) for utterance in utterances}
    batch: list[Utterance] = []
    for utterance in sorted(sizes, key=lambda u: (-sizes[u], u.id)):
        if batch and (len(batch) + 1) * sizes[batch[0]] > seconds:
            yield batch
            batch = []
        batch.append(utterance)
    if batch:
        yield batch


def window_batches(
    windowed: Windowed, utterances: Iterable[Utterance], *, seconds: float
) -> Iterator[list[Utterance]]:
    """Batches of the windows of long recordings, in order, within the same budget."""
    batch: list[Utterance] = []
    for window in (piece for utterance in utterances for piece in windowed.pieces(utterance)):
        # The last window of a recording may be a little shorter than the others.
        if batch and (len(batch) + 1) * padded_seconds(windowed, batch[0]) > seconds:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def default_batch_seconds(backbone: Backbone, device: torch.device) -> float:
    """Default budget of a batch in padded seconds.

    On a CPU one utterance at a time (0) is the fastest, unless that is too little work: a backbone
    that is faster over several gives its budget in the attribute `cpu_batch_seconds`.
    """
    if device.type != "cpu":
        return BATCH_SECONDS
    return float(getattr(innermost(backbone), "cpu_batch_seconds", 0.0))


def default_workers(
    backbone: Backbone, device: torch.device, seconds: float, sharing: int = 1
) -> int:
    """Default number of processes that prepare inputs.

    On a CPU a network uses all cores, and decoding audio is a thousandth of the work; a signal
    processor does everything in `prepare`, so it gets a process for each core.

    Args:
        backbone: Backbone whose inputs are prepared.
        device: Device that it runs on.
        seconds: Seconds of audio to prepare.
        sharing: Extractions, a device each, among which the cores are divided.
    """
    decoding_only = module_of(backbone) is not None and device.type == "cpu"
    if decoding_only or seconds < WORTH_WORKERS or not _shared_memory_is_large(sharing):
        return 0
    return min(MAX_WORKERS, max(1, len(os.sched_getaffinity(0)) // sharing))


def prepare_ahead(
    backbone: Backbone,
    batches: Iterable[Sequence[Utterance]],
    *,
    workers: int,
    device: torch.device,
) -> Iterator[Prepared]:
    """Prepare batches in order, with `workers` processes working ahead (0: in this process).

    `batches` is consumed only as fast as the workers need it. For a GPU, inputs are in page-locked
    memory.
    """
    context = multiprocessing.get_context("forkserver") if workers else None
    if context is not None:
        context.set_forkserver_preload([__name__])
    loader = DataLoader(
        _Batches(backbone),
        batch_size=None,
        sampler=_Order(batches),
        num_workers=workers,
        multiprocessing_context=context,
        worker_init_fn=_begin_worker,
        pin_memory=device.type == "cuda",
    )
    # The loader's thread that locks pages starts here, and is on the device that is current now.
    with entered(device), sigint_blocked() if workers else contextlib.nullcontext():
        prepared = iter(loader)
    while True:
        with entered(device):
            item = next(prepared, None)
        if item is None:
            return
        yield item


def _begin_worker(_number: int) -> None:
    """By itself, a loader's worker notices the end of its parent only while it is idle."""
    end_with_parent()


class _Batches(Dataset[Prepared]):
    """Dataset for the loader, in which a batch of utterances is its own index."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __getitem__(self, batch: Sequence[Utterance]) -> Prepared:
        return prepare(self.backbone, batch)


class _Order(Sampler[Sequence[Utterance]]):
    def __init__(self, batches: Iterable[Sequence[Utterance]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Sequence[Utterance]]:
        return iter(self.batches)


def _shared_memory_is_large(sharing: int) -> bool:
    return not SHARED_MEMORY.is_dir() or (
        shutil.disk_usage(SHARED_MEMORY).free >= SHARED_MEMORY_BYTES * sharing
    )
