"""Arrays that many processes read and that are in memory once: files, which each process maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.files.writing import make_folder


class SharedArrays(dict[str, NDArray[Any]]):
    """Arrays by name in a folder, opened at first use; to other processes only its path is sent.

    They cannot be changed. The files may be removed meanwhile: what is open stays readable.

    Args:
        folder: Folder of the files, one for each array.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @classmethod
    def write(cls, folder: Path, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Write arrays that are not empty."""
        make_folder(folder)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return cls(folder)

    def __missing__(self, name: str) -> NDArray[Any]:
        # As a plain array: indexing a `memmap` takes many times longer.
        array = np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r"))
        self[name] = array
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)
