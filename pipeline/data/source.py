"""What training reads: labels by split, and batches of them, wherever their features come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from features.corpus.manifest import Label
from features.stream import StreamSpec
from pipeline.model.batch import Batch

Rows = TypeVar("Rows")


class ExampleSource(Protocol):
    """Utterances that every filled slot has something of.

    `pipeline.data.examples.Examples` has their features from caches,
    `pipeline.e2e.source.LiveExamples` what backbones make them of. A row of a batch is an utterance
    or a dialogue: its labels.
    """

    @property
    def labels(self) -> Sequence[Label]:
        """In corpus order; only usable ones."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names, in the order of the model's outputs."""
        ...

    @property
    def dropped(self) -> Mapping[str, str]:
        """Reasons by id of those that a slot lacks."""
        ...

    @property
    def noticed(self) -> Mapping[str, Mapping[str, str]]:
        """By slot the notices by id of utterances that are used, though not wholly."""
        ...

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """Streams by slot."""
        ...

    def split(self, fold: int, name: str) -> list[Label]:
        """Labels of one split of one fold; an error if there are none."""
        ...

    def batch(self, labels: Sequence[Label]) -> Batch:
        """Some utterances."""
        ...

    def dialogue_batch(self, dialogues: Sequence[Sequence[Label]]) -> Batch:
        """Some dialogues, each the labels of its turns in order."""
        ...

    def length(self, label: Label) -> float:
        """By which utterances are sorted, so that those of a batch are about equally long."""
        ...

    def typical(self, size: int) -> int:
        """Rows of a usual batch where the protocol says `size`."""
        ...

    def counts(self, rows: Sequence[Sequence[Label]], size: int) -> list[int]:
        """How many rows each batch has, if rows in order of length are cut into batches."""
        ...

    def made(self, make: Callable[[Rows], Batch], groups: Sequence[Rows]) -> Iterator[Batch]:
        """`map(make, groups)`, ahead of whoever uses the batches where that saves time."""
        ...


def even_counts(rows: int, size: int) -> list[int]:
    """Batches of `size` rows, and one of the rest.

    >>> even_counts(5, 2)
    [2, 2, 1]
    """
    return [min(size, rows - start) for start in range(0, rows, size)]
