"""Arrays out of files that somebody else made: nothing is executed, and no size is believed.

Read are .npy of numbers, .safetensors, and .pt and .pth as `torch.save` writes them since torch
1.6 (tensors alone). Other formats are refused before they are opened, with what converts them, and
pickles inside of a format by its reader: numpy's object arrays, and what else `torch.save` takes.
An array is read once its declared size is known to be in the file, and to be at most `largest`.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from features.errors import CacheError
from features.files.reading import check_regular

Array = NDArray[Any]
LARGEST_BYTES = 1 << 30  # of one utterance: 40 minutes of float32 frames, 2,048 wide, each 20 ms
SAVE_SAFELY = (
    "read it where you trust it, and save each utterance by numpy.save(path, array) or "
    "safetensors.numpy.save_file"
)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(file: BinaryIO, size: int, largest: int) -> Array:
    """An array of numbers in numpy's format, its header held against the bytes that there are.

    Args:
        file: At its beginning.
        size: Bytes of it.
        largest: Bytes that the array may take.

    Raises:
        CacheError: If it is a pickle, or declares another size than it has.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise CacheError(f"has version {version} of numpy's format; expected one of numbers alone")
    shape, by_column, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise CacheError(
            f"holds Python objects, which are pickled and can run code when read; {SAVE_SAFELY}"
        )
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != there or min(shape, default=0) < 0:
        raise CacheError(f"declares {declared:,} bytes of values {shape} and has {there:,}")
    allow(declared, largest)
    buffer = bytearray(declared)
    if file.readinto(buffer) != declared:  # type: ignore[attr-defined]
        raise CacheError("ends before its values do")
    values = np.frombuffer(buffer, dtype)
    return values.reshape(shape, order="F" if by_column else "C")


def check_torch_archive(path: Path) -> None:
    """Refuse what `torch.load` would unpack to more than the file is, or unpickle before it looks.

    Raises:
        CacheError: If it is of torch before 1.6, or compressed, which `torch.save` never does.
    """
    if not zipfile.is_zipfile(path):
        raise CacheError(f"is not what torch.save writes since torch 1.6; {SAVE_SAFELY}")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [info.filename for info in members if info.compress_type != zipfile.ZIP_STORED]
    if packed or sum(info.file_size for info in members) > path.stat().st_size:
        raise CacheError(f"is compressed, which torch.save never does; {SAVE_SAFELY}")


def as_array(tensor: Tensor, largest: int) -> Array:
    """A dense tensor as an array; numpy has no bfloat16, whose values float32 holds exactly.

    Raises:
        CacheError: If it is sparse or quantised, or has more values than it stores.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CacheError("holds a sparse, quantised or empty tensor; expected plain numbers")
    declared = tensor.numel() * tensor.element_size()
    allow(declared, largest)
    if tensor.untyped_storage().nbytes() < declared:
        raise CacheError(f"declares {declared:,} bytes of values and stores fewer")
    plain = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    array: Array = plain.contiguous().numpy()
    return array


def allow(declared: int, largest: int) -> None:
    """Raise `CacheError` if an array is larger than one utterance's may be."""
    if declared > largest:
        raise CacheError(
            f"declares {declared:,} bytes for one utterance; at most {largest:,} are read: if it "
            "is meant, save it in float16 or in parts"
        )


Found = TypeVar("Found")


class ArrayFile(Protocol):
    """A file that is open for reading, with one array or several by name."""

    def names(self) -> list[str]:
        """Names of the arrays; a single empty one where the format has none."""
        ...

    def read(self, name: str) -> Array:
        """One array.

        Raises:
            CacheError: If it must not, or cannot be read, saying why; never naming the file.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class NpyFile:
    """An array as `numpy.save` wrote it."""

    def __init__(self, path: Path, largest: int) -> None:
        self.path, self.largest = path, largest

    def names(self) -> list[str]:
        """The one array has no name."""
        return [""]

    def read(self, name: str) -> Array:  # noqa: ARG002  there is but one
        """The array."""
        with self.path.open("rb") as file:
            return read_npy(file, self.path.stat().st_size, self.largest)

    def close(self) -> None:
        """Nothing stays open."""


class SafetensorsFile:
    """Tensors by name; the format holds nothing else, and its reader believes no size."""

    def __init__(self, path: Path, largest: int) -> None:
        self.largest = largest
        self.file: Any = safe_open(path, "pt")

    def names(self) -> list[str]:
        """Names of the tensors."""
        return list(self.file.keys())

    def read(self, name: str) -> Array:
        """The tensor of that name."""
        return as_array(self.file.get_tensor(name), self.largest)

    def close(self) -> None:
        """Let go of the mapped pages."""
        self.file = None


class TorchFile:
    """A tensor, or tensors by name, as `torch.save` wrote them; nothing else in it is built."""

    def __init__(self, path: Path, largest: int) -> None:
        self.largest = largest
        check_torch_archive(path)
        # Mapped, so that of many tensors only those are in memory that are being read.
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        named = content if isinstance(content, Mapping) else {"": content}
        self.tensors = {str(k): value for k, value in named.items() if isinstance(value, Tensor)}

    def names(self) -> list[str]:
        """Names of the tensors."""
        return list(self.tensors)

    def read(self, name: str) -> Array:
        """The tensor of that name."""
        return as_array(self.tensors[name], self.largest)

    def close(self) -> None:
        """Let go of the mapped pages."""
        self.tensors = {}


READERS: dict[str, Callable[[Path, int], ArrayFile]] = {
    ".npy": NpyFile,
    ".safetensors": SafetensorsFile,
    ".pt": TorchFile,
    ".pth": TorchFile,
}
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".dill", ".cloudpickle")
_FROM_HDF5 = (
    "arrays = {{}}; h5py.File({file!r}).visititems(lambda id, item: "
    "arrays.update({{id: item[()]}} if isinstance(item, h5py.Dataset) else {{}}))"
)
# How to read all arrays of a format that is not imported.
CONVERTIBLE = {
    ".npz": "arrays = dict(numpy.load({file!r}))",
    ".h5": _FROM_HDF5,
    ".hdf5": _FROM_HDF5,
}
REFUSED = (*PICKLES, *CONVERTIBLE)
FORMATS = ", ".join(READERS)


@dataclass(frozen=True)
class _Opened:
    """A file and the names in it, listed once."""

    path: Path
    file: ArrayFile
    names: Mapping[str, None]


class ArrayReader:
    """Reads arrays by file and name, keeping the last file open for the next one.

    Args:
        largest: Bytes that one array may take.
    """

    def __init__(self, largest: int = LARGEST_BYTES) -> None:
        self.largest = largest
        self._last: _Opened | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def names(self, path: Path) -> list[str]:
        """Names of the arrays in a file; a CacheError says why it cannot be read."""
        return self._guarded(path, lambda opened: list(opened.names))

    def read(self, path: Path, name: str | None) -> Array:
        """An array of a file; None: the only one that is in it.

        Raises:
            CacheError: If it is refused, unreadable, or not there; never naming the file.
        """

        def of(opened: _Opened) -> Array:
            names = opened.names
            if name is None and len(names) != 1:
                raise CacheError(f"holds {len(names)} arrays; expected one, or its name in `key`")
            wanted = next(iter(names)) if name is None else name
            if wanted not in names:
                raise CacheError(f"holds no array {wanted!r}")
            return opened.file.read(wanted)

        return self._guarded(path, of)

    def _guarded(self, path: Path, use: Callable[[_Opened], Found]) -> Found:
        _check_format(path)
        try:
            return use(self._open(path))
        except CacheError:
            raise
        except Exception as error:  # damaged bytes can make a reader fail in any way
            if type(error).__name__ == "UnpicklingError":
                raise CacheError(
                    f"holds more than tensors, which could run code when read; {SAVE_SAFELY}"
                ) from error
            told = (error.strerror if isinstance(error, OSError) else None) or str(error)
            first = (told.strip().splitlines() or [type(error).__name__])[0]
            raise CacheError(f"cannot be read ({first})") from error

    def _open(self, path: Path) -> _Opened:
        if self._last is None or self._last.path != path:
            self._close()
            check_regular(path)
            file = READERS[path.suffix.lower()](path, self.largest)
            self._last = _Opened(path, file, dict.fromkeys(file.names()))
        return self._last

    def _close(self) -> None:
        if self._last is not None:
            self._last.file.close()
        self._last = None


def _check_format(path: Path) -> None:
    """Refuse formats that are not read, by the name of the file alone."""
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise CacheError(f"is a pickle, which can run code when it is read; {SAVE_SAFELY}")
    if suffix in CONVERTIBLE:
        read = CONVERTIBLE[suffix].format(file=path.name)
        target = path.with_suffix(".safetensors").name
        raise CacheError(
            f"is of a format that is not read; expected {FORMATS}. Two lines of Python convert it: "
            f"`{read}` and `safetensors.numpy.save_file(arrays, {target!r})`"
        )
    if suffix not in READERS:
        raise CacheError(f"is of no known format; expected {FORMATS}")
