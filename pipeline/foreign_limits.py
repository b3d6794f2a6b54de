"""How much is believed of what a foreign file says about itself, and what to do instead."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.errors import CacheError

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
