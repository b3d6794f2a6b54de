"""Reads arrays from files of unknown origin: executes nothing and trusts no declared size.

Formats are .npy with numbers, .safetensors, and .pt and .pth as `torch.save` writes them since
torch 1.6 (tensors alone). Other formats are refused before they are opened, with lines of Python
that convert them. Pickles inside a format (numpy's object arrays, objects in `torch.save`) are
refused by its reader. An array is read once its declared size is known to be in the file, and to be
at most `largest`.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from features.errors import CacheError
from features.files.reading import check_regular

Array = NDArray[Any]
# Functions that read the arrays of a file, by name; the one array of a file without names is "".
Arrays = Mapping[str, Callable[[], Array]]
LARGEST_BYTES = 1 << 30  # of one utterance: 40 minutes of float32 frames, 2,048 wide, each 20 ms
SAVE_SAFELY = (
    "read it where you trust it, and save each utterance by numpy.save(path, array) or "
    "safetensors.numpy.save_file"
)
# Version 3.0 is for names of fields beyond Latin-1, which arrays of numbers lack.
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path, largest: int) -> Array:
    """The array of numbers in a file of `numpy.save`.

    Raises:
        CacheError: If it is a pickle, is larger than `largest`, or declares another size than the
            file has.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise CacheError(
                f"has version {version} of numpy's format; expected one of numbers alone"
            )
        shape, by_column, dtype = HEADERS[version](file)
        if dtype.hasobject:
            raise CacheError(
                f"holds Python objects, which are pickled and can run code when read; {SAVE_SAFELY}"
            )
        declared = math.prod(shape) * dtype.itemsize
        there = path.stat().st_size - file.tell()
        # Two negative lengths have a positive product.
        if declared != there or min(shape, default=0) < 0:
            raise CacheError(f"declares {declared:,} bytes of values {shape} and has {there:,}")
        check_size(declared, largest)
        buffer = bytearray(declared)
        if file.readinto(buffer) != declared:
            raise CacheError("ends before its values do")
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if by_column else "C")


def open_safetensors(path: Path, largest: int) -> Arrays:
    """Tensors by name; the format holds nothing else, and its reader checks all sizes."""
    file: Any = safe_open(path, "pt")
    names: list[str] = file.keys()

    def read(name: str) -> Array:
        return as_array(file.get_tensor(name), largest)

    return {name: partial(read, name) for name in names}


def open_torch(path: Path, largest: int) -> Arrays:
    """A tensor, or tensors by name, as `torch.save` wrote them; other objects are not built.

    Raises:
        CacheError: If the file is of torch before 1.6, which unpickles it, or compressed, so that
            it unpacks to more than its size; `torch.save` never compresses.
    """
    if not zipfile.is_zipfile(path):
        raise CacheError(f"is not what torch.save writes since torch 1.6; {SAVE_SAFELY}")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [info.filename for info in members if info.compress_type != zipfile.ZIP_STORED]
    # Members that overlap unpack to more than the file, even without compression.
    if packed or sum(info.file_size for info in members) > path.stat().st_size:
        raise CacheError(f"is compressed, which torch.save never does; {SAVE_SAFELY}")
    # Mapped, so that only the tensors that are being read are in memory.
    content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    named = content if isinstance(content, Mapping) else {"": content}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, Tensor)}
    return {name: partial(as_array, tensor, largest) for name, tensor in tensors.items()}


def as_array(tensor: Tensor, largest: int) -> Array:
    """A dense tensor as an array; bfloat16, which numpy lacks, as float32, which holds it exactly.

    Raises:
        CacheError: If it is sparse or quantised, is larger than `largest`, or has more values than
            it stores.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CacheError("holds a sparse, quantised or empty tensor; expected plain numbers")
    declared = tensor.numel() * tensor.element_size()
    check_size(declared, largest)
    # With a stride of 0 one stored value stands for any number of values.
    if tensor.untyped_storage().nbytes() < declared:
        raise CacheError(f"declares {declared:,} bytes of values and stores fewer")
    plain = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    array: Array = plain.contiguous().numpy()
    return array


def check_size(declared: int, largest: int) -> None:
    """Raise `CacheError` if an array has more bytes than one utterance's may have."""
    if declared > largest:
        raise CacheError(
            f"declares {declared:,} bytes for one utterance; at most {largest:,} are read: if it "
            "is meant, save it in float16 or in parts"
        )


READERS: dict[str, Callable[[Path, int], Arrays]] = {
    ".npy": lambda path, largest: {"": partial(read_npy, path, largest)},
    ".safetensors": open_safetensors,
    ".pt": open_torch,
    ".pth": open_torch,
}
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".dill", ".cloudpickle")
_FROM_HDF5 = (
    "arrays = {{}}; h5py.File({file!r}).visititems(lambda id, item: "
    "arrays.update({{id: item[()]}} if isinstance(item, h5py.Dataset) else {{}}))"
)
# A line of Python that reads all arrays of a format that is not imported.
CONVERTIBLE = {
    ".npz": "arrays = dict(numpy.load({file!r}))",
    ".h5": _FROM_HDF5,
    ".hdf5": _FROM_HDF5,
}
REFUSED = (*PICKLES, *CONVERTIBLE)
FORMATS = ", ".join(READERS)


class ArrayReader:
    """Reads arrays by file and name, keeping the last file open for the next call.

    Its errors (`CacheError`) never name the file.

    Args:
        largest: Bytes that one array may have.
    """

    def __init__(self, largest: int = LARGEST_BYTES) -> None:
        self.largest = largest
        self._last: tuple[Path, Arrays] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._last = None

    def names(self, path: Path) -> list[str]:
        """Names of the arrays in a file; a CacheError says why it cannot be read."""
        with _explained():
            return list(self._open(path))

    def read(self, path: Path, name: str | None) -> Array:
        """An array of a file; None: its only one.

        Raises:
            CacheError: If it is refused, unreadable, or missing.
        """
        with _explained():
            arrays = self._open(path)
            if name is None and len(arrays) != 1:
                raise CacheError(f"holds {len(arrays)} arrays; expected one, or its name in `key`")
            wanted = next(iter(arrays)) if name is None else name
            if wanted not in arrays:
                raise CacheError(f"holds no array {wanted!r}")
            return arrays[wanted]()

    def _open(self, path: Path) -> Arrays:
        _check_format(path)
        if self._last is None or self._last[0] != path:
            self._last = None  # unmaps the file before the next one is mapped
            check_regular(path)
            self._last = path, READERS[path.suffix.lower()](path, self.largest)
        return self._last[1]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn any error of a reader into a `CacheError` of one line."""
    try:
        yield
    except CacheError:
        raise
    except Exception as error:  # damaged bytes can make a reader fail in any way
        if type(error).__name__ == "UnpicklingError":
            raise CacheError(
                f"holds more than tensors, which could run code when read; {SAVE_SAFELY}"
            ) from error
        message = (error.strerror if isinstance(error, OSError) else None) or str(error)
        first = (message.strip().splitlines() or [type(error).__name__])[0]
        raise CacheError(f"cannot be read ({first})") from error


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
