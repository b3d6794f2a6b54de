"""Batches of utterances, and their inputs prepared ahead of the device.

Batches are formed inside a shard, longest clips first, up to a budget of padded seconds; so what a
shard holds does not depend on what ran before it. On a CPU the budget is the backbone's own. Inputs
are prepared in worker processes, in order, while the device computes.
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
from features.corpus.utterance import Utterance
from features.errors import CacheError, HeronryError, UtteranceError
from features.process.devices import entered
from features.process.memory import out_of_memory, too_large
from features.process.workers import end_with_parent, sigint_blocked

BATCH_SECONDS = 480.0  # padded, on an accelerator: 16 windows of Whisper
WORTH_WORKERS = 200.0  # seconds of audio below which starting processes costs more than it saves
MAX_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES = 512 * 2**20  # below that, batches do not fit on their way from the workers


@dataclass(frozen=True)
class Prepared:
    """A batch as a worker hands it over.

    Attributes:
        utterances: Those that `inputs` holds, in that order.
        inputs: None if none could be used.
        rejected: Reasons by id of the others.
        error: What stops the extraction, such as a missing file.
    """

    utterances: tuple[Utterance, ...]
    inputs: Inputs | None
    rejected: dict[str, str]
    error: HeronryError | None = None

    def pin_memory(self) -> Self:
        """The same in page-locked memory (called by the loader)."""
        inputs = None if self.inputs is None else self.inputs.pin_memory()
        return type(self)(self.utterances, inputs, self.rejected, self.error)


def prepare(backbone: Backbone, batch: Sequence[Utterance]) -> Prepared:
    """Inputs of a batch; an utterance that cannot be used is left out, with its reason."""
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
    """The rest of a batch for which there is too little memory here: without those too large."""
    if len(batch) == 1:
        return Prepared((), None, {**rejected, batch[0].id: too_large("this machine")})
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


def form_batches(
    backbone: Backbone, utterances: Iterable[Utterance], *, seconds: float
) -> Iterator[list[Utterance]]:
    """Batches of similar length whose padded size is at most `seconds`, the longest first.

    A budget of 0 gives batches of one.
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


def default_batch_seconds(backbone: Backbone, device: torch.device) -> float:
    """Budget of a batch where none is given.

    On a CPU one utterance at a time is the fastest (0), unless it is too little work: a backbone
    that is faster over several says how many seconds by its attribute `cpu_batch_seconds`.
    """
    if device.type != "cpu":
        return BATCH_SECONDS
    inner = innermost(backbone)
    return float(getattr(inner, "cpu_batch_seconds", 0.0))


def default_workers(backbone: Backbone, device: torch.device, seconds: float) -> int:
    """Processes that prepare inputs where their number is not given.

    On a CPU the network takes all cores, and what remains beside it is decoding, a thousandth of
    the work; a signal processor does everything in `prepare`, so it gets every core.
    """
    idle = module_of(backbone) is not None and device.type == "cpu"
    if idle or seconds < WORTH_WORKERS or not _shared_memory_is_large():
        return 0
    return min(MAX_WORKERS, len(os.sched_getaffinity(0)))


def prepare_ahead(
    backbone: Backbone,
    batches: Iterable[Sequence[Utterance]],
    *,
    workers: int,
    device: torch.device,
) -> Iterator[Prepared]:
    """Each batch prepared, in order, `workers` processes working ahead (0: none, in line).

    `batches` is asked for more only as the workers need it. For a GPU they are in page-locked
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
    # The loader's thread that locks pages is on the device of now.
    with entered(device), sigint_blocked() if workers else contextlib.nullcontext():
        prepared = iter(loader)
    while True:
        with entered(device):
            item = next(prepared, None)
        if item is None:
            return
        yield item


def _begin_worker(_number: int) -> None:
    """A loader's worker looks for its parent only while it has nothing to do."""
    end_with_parent()


class _Batches(Dataset[Prepared]):
    """The loader's view: a batch is its own index."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __getitem__(self, batch: Sequence[Utterance]) -> Prepared:
        return prepare(self.backbone, batch)


class _Order(Sampler[Sequence[Utterance]]):
    def __init__(self, batches: Iterable[Sequence[Utterance]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Sequence[Utterance]]:
        return iter(self.batches)


def _shared_memory_is_large() -> bool:
    return not SHARED_MEMORY.is_dir() or (
        shutil.disk_usage(SHARED_MEMORY).free >= SHARED_MEMORY_BYTES
    )
