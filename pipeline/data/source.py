"""Contract of what training reads: labels by split, and batches, wherever features come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.corpus.manifest import Label
from features.stream import StreamSpec
from pipeline.data.targets import TargetReader
from pipeline.model.batch import Batch

T = TypeVar("T")


class ExampleSource(Protocol):
    """Labelled utterances that every filled slot has features of.

    `pipeline.data.examples.Examples` reads their features from caches,
    `pipeline.e2e.source.LiveExamples` has backbones compute them. A row of a batch is an utterance
    or a dialogue, given by its labels.
    """

    @property
    def labels(self) -> Sequence[Label]:
        """Usable labels, in corpus order."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the model's outputs."""
        ...

    @property
    def targets(self) -> TargetReader | None:
        """What a model learns; None: one class an utterance."""
        ...

    @property
    def dropped(self) -> Mapping[str, Mapping[str, str]]:
        """Reasons by id and slot, of utterances that a slot lacks."""
        ...

    @property
    def noticed(self) -> Mapping[str, Mapping[str, str]]:
        """Notices by slot and id, of utterances that are used in part."""
        ...

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """Streams by slot."""
        ...

    def split(self, fold: int, name: str) -> Sequence[Label]:
        """Labels of one split of one fold; an error if there are none."""
        ...

    def batch(self, labels: Sequence[Label]) -> Batch:
        """Batch of some utterances."""
        ...

    def dialogue_batch(self, dialogues: Sequence[Sequence[Label]]) -> Batch:
        """Batch of some dialogues, each the labels of its turns in order."""
        ...

    def lengths(self, labels: Sequence[Label]) -> NDArray[np.float64]:
        """Lengths to sort utterances by, so that those of a batch are about equally long."""
        ...

    def typical_rows(self, size: int) -> int:
        """Rows of a usual batch where the protocol says `size`."""
        ...

    def batch_sizes(self, rows: Sequence[Sequence[Label]], size: int) -> list[int]:
        """Rows of each batch, if rows in order of length are cut into batches."""
        ...

    def make_all(self, make: Callable[[T], Batch], members: Sequence[T]) -> Iterator[Batch]:
        """`map(make, members)`, ahead of the caller where that saves time."""
        ...


def even_sizes(rows: int, size: int) -> list[int]:
    """Sizes of batches of `size` rows, and of one of the rest.

    >>> even_sizes(5, 2)
    [2, 2, 1]
    """
    return [min(size, rows - start) for start in range(0, rows, size)]
