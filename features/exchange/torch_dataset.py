"""Serves a cache as a `torch.utils.data.Dataset`, for training code outside of heronry.

    data = CacheDataset(Path("cache/demo/whisper_tiny_en"))
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=2, collate_fn=collate)
    for batch in loader:
        batch.stream.values, batch.stream.mask  # [B, T, D] in float32 and [B, T]

Heronry's own training does not use it: `pipeline.data.examples` forms its batches without workers.
The dataset keeps no file open and may be sent to workers, forked or spawned; they share the pages
of the files, or read rows where the cache does not fit into memory.

Shapes: B batch, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from features.arguments import counted
from features.cache.reader import CacheReader
from features.errors import CacheError
from features.stream import Stream, StreamSpec


@dataclass(frozen=True)
class CachedItem:
    """One utterance.

    Attributes:
        id: Id of the utterance.
        frames: `[T, D]` float32, or `[T]` int64 bins.
        label: Index of the class; None where no labels were given.
    """

    id: str
    frames: Tensor
    label: int | None = None


@dataclass(frozen=True)
class CachedBatch:
    """A padded batch of utterances.

    Attributes:
        ids: Ids of the B utterances.
        stream: Values `[B, T, D]` (bins: `[B, T]`) and mask `[B, T]`.
        labels: `[B]` int64; None where no labels were given.
    """

    ids: tuple[str, ...]
    stream: Stream
    labels: Tensor | None = None

    def pin_memory(self) -> Self:
        """A copy in page-locked memory (called by the loader)."""
        stream = Stream(self.stream.values.pin_memory(), self.stream.mask.pin_memory())
        return type(self)(
            self.ids, stream, None if self.labels is None else self.labels.pin_memory()
        )


class CacheDataset(Dataset[CachedItem]):
    """The utterances of a cache folder.

    Args:
        folder: `cache/<corpus>/<backbone>`.
        labels: Class index by id; utterances without one are left out.
        ids: Utterances to serve, in this order; None: all, in manifest order.
        verify: Whether to compare checksums first, which reads everything once.

    Raises:
        CacheError: If the cache is missing or damaged, lacks one of `ids`, or no utterance is left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        labels: Mapping[str, int] | None = None,
        ids: Sequence[str] | None = None,
        verify: bool = False,
    ) -> None:
        self.reader = CacheReader(folder, verify=verify)
        missing = [id for id in ids or () if id not in self.reader]
        if missing:
            raise CacheError(
                f"{folder} has no features of {counted(missing)}; see {folder / 'rejected.csv'}"
            )
        wanted = self.reader if ids is None else ids
        self.ids = [id for id in wanted if labels is None or id in labels]
        if not self.ids:
            raise CacheError(f"{folder} has features of none of the utterances that have labels")
        self.labels = labels

    @property
    def spec(self) -> StreamSpec:
        """Width and kind of the frames."""
        return self.reader.spec

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> CachedItem:
        id = self.ids[index]
        frames = self.reader.batch([id]).values[0]  # copied, since `self.reader[id]` is read-only
        return CachedItem(id, frames, None if self.labels is None else self.labels[id])


def collate(items: Sequence[CachedItem]) -> CachedBatch:
    """Pad utterances to one batch: the `collate_fn` of a `DataLoader`.

    >>> batch = collate([CachedItem("a", torch.ones(2, 3)), CachedItem("b", torch.ones(1, 3))])
    >>> batch.stream.values.shape, batch.stream.mask.sum(1).tolist()
    (torch.Size([2, 2, 3]), [2, 1])
    """
    labels = [item.label for item in items if item.label is not None]
    return CachedBatch(
        tuple(item.id for item in items),
        Stream.pad([item.frames for item in items]),
        torch.tensor(labels) if len(labels) == len(items) else None,
    )
