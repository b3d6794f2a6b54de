"""Batches for end-to-end training: inputs of backbones, beside streams from caches.

Threads decode, resample and tokenise (`Backbone.prepare`) ahead of the device, mostly outside of
Python's lock. Batches come in the order in which they were asked for, so that the number of threads
changes no result. Where several processes train together, each makes its own share of every batch.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.backbone.base import Backbone, Inputs, notices, padded_seconds
from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from features.errors import HeronryError, ManifestError, UtteranceError
from features.process.ahead import in_order
from features.process.devices import device_threads
from features.process.terminal import progress
from features.stream import StreamSpec
from pipeline.data.examples import Examples
from pipeline.data.source import T, even_sizes
from pipeline.data.targets import TargetReader
from pipeline.model.batch import UNSCORED, Batch, Targets
from pipeline.training.fitting import FillerBatch
from pipeline.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class LiveExamples:
    """Labelled utterances as backbones read them (an `ExampleSource`).

    Attributes:
        cached: Labels, and the streams of the slots that are read from caches, if any.
        backbones: Backbones of the live slots; their networks are not used here.
        utterances: Utterances by id, their audio located.
        batch_size: Largest number of rows of a batch, also in evaluation.
        batch_seconds: Padded seconds at which a batch closes; None: only its rows count.
        threads: Number of threads that prepare batches.
        pinned: Whether batches are made in page-locked memory, from which a GPU copies by itself.
        ranks: Processes that share the rows of each batch.
    """

    cached: Examples
    backbones: Mapping[str, Backbone]
    utterances: Mapping[str, Utterance]
    batch_size: int
    batch_seconds: float | None = None
    threads: int = 1
    pinned: bool = False
    ranks: Ranks = ALONE
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def labels(self) -> Sequence[Label]:
        """Usable labels, in corpus order."""
        return self.cached.labels

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the model's outputs."""
        return self.cached.classes

    @property
    def targets(self) -> TargetReader | None:
        """What a model learns; None: one class an utterance."""
        return self.cached.targets

    @property
    def dropped(self) -> Mapping[str, Mapping[str, str]]:
        """Reasons by id and slot, of utterances that a slot cannot use."""
        return self.cached.dropped

    @cached_property
    def noticed(self) -> dict[str, dict[str, str]]:
        """Notices by slot and id: what its backbone, or its cache, leaves out of an utterance.

        Computed once: a text backbone counts the tokens of the whole corpus for it.
        """
        live = {
            slot: dict(notices(backbone, (self.read(slot, label.id) for label in self.labels)))
            for slot, backbone in self.backbones.items()
        }
        return live | self.cached.noticed

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """Streams by slot."""
        live = {slot: backbone.spec for slot, backbone in self.backbones.items()}
        return live | self.cached.specs

    def split(self, fold: int, name: str) -> Sequence[Label]:
        """Labels of one split of one fold; an error if it is empty."""
        return self.cached.split(fold, name)

    def batch(self, labels: Sequence[Label]) -> Batch:
        """This process's share of some utterances: inputs of backbones, and cached streams."""
        whole = None if self.targets is None else self.targets.read(labels)
        return self._shared(self.cached.batch, labels, whole)

    def dialogue_batch(self, dialogues: Sequence[Sequence[Label]]) -> Batch:
        """The same of some dialogues; backbones get their turns one after the other."""
        whole = None if self.targets is None else self.targets.read_dialogues(dialogues)
        return self._shared(self.cached.dialogue_batch, dialogues, whole)

    def length(self, label: Label) -> float:
        """Seconds of an utterance, or of the window that it is padded to.

        Without a backbone that reads audio, the seconds that its text would take.
        """
        audio = [slot for slot, backbone in self.backbones.items() if backbone.reads == "audio"]
        return max(
            padded_seconds(self.backbones[slot], self.read(slot, label.id))
            for slot in audio or self.backbones
        )

    def lengths(self, labels: Sequence[Label]) -> NDArray[np.float64]:
        """`length` of each."""
        return np.array([self.length(label) for label in labels], np.float64)

    def read(self, slot: str, id: str) -> Utterance:  # noqa: ARG002  others read by slot
        """The utterance that a slot's backbone reads for an id; conditions exchange it."""
        return self.utterances[id]

    def typical_rows(self, size: int) -> int:
        """Rows of a usual batch."""
        if self.batch_seconds is None:
            return min(size, self.batch_size)
        mean = sum(self.length(label) for label in self.labels) / len(self.labels)
        return max(1, round(self.batch_seconds / max(mean, 1e-3)))

    def batch_sizes(self, rows: Sequence[Sequence[Label]], size: int) -> list[int]:
        """As many rows as fit `batch_seconds`, with each utterance padded to the longest."""
        if self.batch_seconds is None:
            return even_sizes(len(rows), min(size, self.batch_size))
        counts: list[int] = []
        utterances, longest = 0, 0.0
        for row in rows:
            longest = max(longest, *(self.length(label) for label in row))
            utterances += len(row)
            if counts and utterances * longest <= self.batch_seconds:
                counts[-1] += 1
                continue
            counts.append(1)
            utterances, longest = len(row), max(self.length(label) for label in row)
        return counts

    def make_all(self, make: Callable[[T], Batch], members: Sequence[T]) -> Iterator[Batch]:
        """Batches in order, made `threads` ahead of the caller."""
        with device_threads(self.threads, "heronry-live") as pool:
            yield from in_order(pool, make, members, self.threads)

    def usable(self) -> LiveExamples:
        """The utterances that every backbone can read, each of which is read once here.

        Raises:
            ManifestError: If the manifest lacks an utterance that has a label.
            HeronryError: If a file is missing or not the one that was prepared.
        """
        unknown = [label.id for label in self.labels if label.id not in self.utterances]
        if unknown:
            raise ManifestError(
                f"{len(unknown)} labels are about utterances that the manifest lacks, such as "
                f"{unknown[:3]}; expected both from one `prepare`: run `dvc repro`"
            )
        found: dict[str, dict[str, str]] = {}
        for reasons in self.ranks.gather_from(self._unreadable, (HeronryError,)):
            found |= reasons
        # In the order of the corpus, in whatever order the processes have found them.
        found = {label.id: found[label.id] for label in self.labels if label.id in found}
        dropped = {**self.cached.dropped, **found}
        kept = [label for label in self.labels if label.id not in found]
        cached = dataclasses.replace(self.cached, labels=kept, dropped=dropped)
        return dataclasses.replace(self, cached=cached)

    def _unreadable(self) -> dict[str, dict[str, str]]:
        """Reasons by id and slot, of the utterances in this process's share that cannot be read."""
        labels = self.ranks.share(self.labels)
        pool = ThreadPoolExecutor(self.threads)
        try:
            tried: Iterator[dict[str, str]] = pool.map(self._reasons, labels)
            if self.ranks.is_first:
                tried = progress(tried, total=len(labels), what="reading", unit="utterance")
            return {label.id: why for label, why in zip(labels, tried, strict=True) if why}
        finally:  # after an error or Ctrl-C, do not read the rest of the corpus
            pool.shutdown(cancel_futures=True)

    def _reasons(self, label: Label) -> dict[str, str]:
        """Why an utterance cannot be read, by slot."""
        reasons = {}
        for slot in self.backbones:
            try:
                self._inputs(slot, (label.id,))
            except UtteranceError as error:
                reasons[slot] = error.reason
        return reasons

    def _shared(
        self, make: Callable[[Sequence[T]], Batch], rows: Sequence[T], whole: Targets | None
    ) -> Batch:
        """This process's share of some rows; if it is empty, the first row as a filler."""
        own = self.ranks.share(rows)
        batch = self._live(make(own or rows[:1]))
        if whole is not None and self.ranks.count > 1:
            batch = dataclasses.replace(batch, targets=self._share_of(whole, batch.present, own))
        # Each process must take part in every step, also one without a row.
        return batch if own else FillerBatch(**vars(batch))

    def _share_of(self, whole: Targets, present: Tensor, own: Sequence[object]) -> Targets:
        """Targets of this process's rows, as a part of those of all; of a filler, none of them."""
        ranks = self.ranks
        share = whole[slice(ranks.number, None, ranks.count) if own else slice(1)]
        # The longest dialogue may be another process's.
        share = share if present.ndim == 1 else share[:, : present.shape[1]]
        if own:
            return share
        assert share.whole is not None
        return share.part_of(share.whole, torch.full(present.shape, UNSCORED))

    def _live(self, batch: Batch) -> Batch:
        inputs = {slot: self._inputs(slot, batch.ids) for slot in self.backbones}
        return dataclasses.replace(batch, inputs=inputs)

    def _inputs(self, slot: str, ids: Sequence[str]) -> Inputs:
        backbone = self.backbones[slot]
        utterances = [self.read(slot, id) for id in ids]
        if backbone.reads != "audio":
            with self._one_at_a_time:  # a tokenizer stores its padding while it works
                inputs = backbone.prepare(utterances)
        else:
            inputs = backbone.prepare(utterances)
        return inputs.pin_memory() if self.pinned else inputs
