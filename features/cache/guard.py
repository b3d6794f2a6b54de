"""Reads attributes and datasets of an HDF5 file that may come from an attacker.

HDF5 can refer to other files (links, external storage, virtual datasets) and can declare arrays of
any size that take no room in the file (chunks that are compressed or were never written, pointers
that all lead to one text). Heronry's shards have none of that (docs/format.md): each dataset is in
the file itself, in one piece. So reading a shard never takes more memory than its own size.
"""

from __future__ import annotations

import math
from typing import Any

import h5py

from features.files.json_text import parse_json

ATTRIBUTES = ("checksum", "format", "provenance", "rejected", "spec", "version")
DATASETS = ("contents", "crc32", "frames", "ids", "offsets", "rounding")
KINDS = "Sfiu"  # numpy's codes of fixed-length texts and numbers; all others hold pointers


def read_attributes(file: Any, size: int) -> dict[str, Any]:
    """Attributes of the format, with texts decoded; others are not read.

    Args:
        file: Open HDF5 file.
        size: Bytes of the file.

    Raises:
        ValueError: If one is an array, or larger than the file.
    """
    found: dict[str, Any] = {}
    for name in ATTRIBUTES:
        if name not in file.attrs:
            continue
        # h5py would allocate the declared size to read it, so that comes after the check.
        stored = file.attrs.get_id(name)
        if stored.shape != () or stored.get_storage_size() > size:
            raise ValueError(f"attribute {name!r} has the shape {stored.shape}; expected one value")
        value = file.attrs[name]
        found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def read_object(text: Any) -> dict[str, Any]:
    """Parse the JSON object of an attribute; a ValueError if it is something else."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"an attribute holds a {type(value).__name__}; expected a JSON object")
    return value


def dataset(file: Any, name: str, size: int) -> Any:
    """A dataset of a shard, checked to lie in this file and to fit into it.

    Args:
        file: Open HDF5 file.
        name: Name of the dataset.
        size: Bytes of the file.

    Raises:
        KeyError: If there is none.
        ValueError: If it refers to another file, holds pointers, or declares more than there is.
    """
    link = file.get(name, getlink=True)
    if link is None:
        raise KeyError(f"dataset {name!r} is missing")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"`{name}` is a {type(link).__name__}, which may lead to another file")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"`{name}` is a {type(found).__name__}; expected a dataset")
    if found.is_virtual or found.external:
        raise ValueError(f"`{name}` has its values in another file")
    if found.dtype.kind not in KINDS:
        raise ValueError(f"`{name}` has the type {found.dtype}; expected numbers or fixed texts")
    # In Python's integers: HDF5's own product of a shape may wrap around to something small.
    declared = math.prod(found.shape or ()) * found.dtype.itemsize
    if declared > size:
        raise ValueError(f"`{name}` declares {declared:,} bytes in a file of {size:,}: truncated")
    if name != "frames" and found.chunks is not None:  # `read_shard` refuses such frames
        raise ValueError(f"`{name}` is not contiguous")
    return found
