"""HDF5 files of other makers: their datasets, and nothing that these lead to.

A dataset of HDF5 may have its values in other files (external links, external storage, virtual
datasets), and may declare any number of values that were never written. Only what stands in the
file itself is read, and only as much as was written.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from features.errors import CacheError
from pipeline.foreign_limits import allow


class Hdf5File:
    """Datasets of numbers by their path in the file, such as `dialogue_1/turn_2`."""

    def __init__(self, path: Path, largest: int) -> None:
        self.largest = largest
        self.file: Any = h5py.File(path, "r", locking=False)
        self._names: list[str] | None = None

    def names(self) -> list[str]:
        """Datasets that stand in the file itself: links are not followed."""
        if self._names is None:
            found: list[str] = []

            def note(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    found.append(name)

            self.file.visititems(note)  # along hard links alone, each object once
            self._names = found + [name for name in self.file if self._is_link(name)]
        return self._names

    def read(self, name: str) -> NDArray[Any]:
        """The dataset of that name.

        Raises:
            CacheError: If its values are elsewhere, no numbers, or more than were written.
        """
        if self._is_link(name):
            raise CacheError("is a link, which may lead to another file; copy the values into it")
        found = self.file[name]
        if found.is_virtual or found.external:
            raise CacheError("has its values in another file; copy them into this one")
        if found.dtype.kind not in "fiu":
            raise CacheError(f"holds {found.dtype}; expected numbers")
        # In Python's integers: HDF5's own product of a shape may wrap around to something small.
        declared = math.prod(found.shape or (0,)) * found.dtype.itemsize
        allow(declared, self.largest)
        written = found.id.get_storage_size()
        packed = found.id.get_create_plist().get_nfilters() > 0
        if declared > written and not (packed and written):
            raise CacheError(f"declares {declared:,} bytes of values, of which {written:,} exist")
        values: NDArray[Any] = found[()]
        return values

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _is_link(self, name: str) -> bool:
        """Whether any step on the way to `name` is more than a place in this file."""
        steps = name.split("/")
        paths = ("/".join(steps[: end + 1]) for end in range(len(steps)))
        return any(
            not isinstance(self.file.get(path, getlink=True), h5py.HardLink) for path in paths
        )
