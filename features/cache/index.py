"""Places of a cache's rows as arrays, some 50 bytes an utterance, which processes may share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.cache.frames import Extent, StoredFrames
from features.process.shared import SharedArrays


class ExtentIndex(Mapping[str, Extent]):
    """Places of rows by utterance id: looked up in the sorted ids.

    Args:
        arrays: `[N]` each: `id` in UTF-8, sorted; `order`, the place of each in the cache; `file`,
            `first` and `last`, its `Extent`.
        stored: Frames of each file.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], stored: Sequence[StoredFrames]) -> None:
        self._arrays, self._stored = arrays, stored

    @classmethod
    def write(cls, folder: Path, extents: Mapping[str, Extent]) -> Self:
        """Write the arrays of places that are not none.

        Args:
            folder: Folder to write to.
            extents: The same as objects, in the order of the cache.
        """
        numbers: dict[int, int] = {}  # of files, by the identity of their records
        files: list[StoredFrames] = []
        ids = np.array([id.encode() for id in extents], np.bytes_)
        order = np.argsort(ids, kind="stable")
        places = np.empty((len(extents), 3), np.int64)
        for row, (stored, first, last) in enumerate(extents.values()):
            if id(stored) not in numbers:
                numbers[id(stored)] = len(files)
                files.append(stored)
            places[row] = numbers[id(stored)], first, last
        file, first_frame, last_frame = places[order].T
        arrays = {
            "id": ids[order],
            "order": order,
            "file": file.astype(np.int32),
            "first": first_frame,
            "last": last_frame,
        }
        return cls(SharedArrays.write(folder, arrays), files)

    def __len__(self) -> int:
        return len(self._arrays["id"])

    def __iter__(self) -> Iterator[str]:
        places, ids = np.empty(len(self), np.int64), self._arrays["id"]
        places[self._arrays["order"]] = np.arange(len(self))
        return (ids[place].decode() for place in places)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find([id])[1] is None

    def __getitem__(self, id: str) -> Extent:
        return self.many([id])[0]

    def many(self, ids: Sequence[str]) -> list[Extent]:
        """Places of several rows.

        Raises:
            KeyError: If one is not there.
        """
        places = self._places(ids)
        each = (self._arrays[name][places].tolist() for name in ("file", "first", "last"))
        stored = self._stored
        return [Extent(stored[file], first, last) for file, first, last in zip(*each, strict=True)]

    def lengths(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Frames of several rows; errors as of `many`."""
        places = self._places(ids)
        return np.asarray(self._arrays["last"][places] - self._arrays["first"][places])

    def _places(self, ids: Sequence[str]) -> NDArray[np.int64]:
        places, missing = self._find(ids)
        if missing is not None:
            raise KeyError(missing)
        return places

    def _find(self, ids: Sequence[str]) -> tuple[NDArray[np.int64], Any]:
        """Places in sorted order, and the first id that is not there; None if all are."""
        known, wanted = self._arrays["id"], [id.encode() for id in ids]
        # Of the type of the sorted ids, which numpy would copy otherwise. It cuts longer ones.
        places = np.searchsorted(known, np.array(wanted, known.dtype))
        places = np.minimum(places, len(known) - 1)
        found = known[places].tolist()
        if found == wanted:
            return places, None
        pairs = zip(ids, wanted, found, strict=True)
        return places, next(id for id, one, other in pairs if one != other)
