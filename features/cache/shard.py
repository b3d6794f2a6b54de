"""Reads and verifies one shard of a cache: a contiguous HDF5 file (docs/format.md).

Shapes: N utterances, T frames of each, D width.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.cache.frames import StoredFrames, identity, raw
from features.cache.guard import DATASETS, dataset, read_attributes, read_object
from features.errors import CacheError, DamagedShardError
from features.files.reading import check_regular
from features.stream import StreamSpec

FORMAT = "heronry-cache"
VERSION = 1
DTYPES = ("float16", "float32", "int16")
DEVIATION = "compute_deviation"  # the one key of provenance in which shards may differ
ADVICE = "run `heronry doctor --repair`, which moves {name} aside, then `dvc repro`"
Array = NDArray[Any]


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:05d}.h5"


@dataclass(frozen=True)
class Row:
    """One utterance of a shard.

    Attributes:
        id: Utterance.
        content: Hash of what the backbone read (`Utterance.audio_content` or `.text_content`).
        frames: `[T, D]` real values or `[T]` bins, in the stored dtype.
        rounding: Largest absolute difference between computed and stored values.
    """

    id: str
    content: str
    frames: Array
    rounding: float = 0.0

    def blocks(self, dtype: str) -> Iterator[memoryview]:
        """Bytes of the frames in a dtype, in order."""
        yield raw(np.ascontiguousarray(self.frames, dtype=dtype))


@dataclass(frozen=True)
class SpooledRow:
    """A `Row` whose frames lie in a temporary file (`features.cache.writer.Spool`)."""

    id: str
    content: str
    frames: StoredFrames
    rounding: float = 0.0

    def blocks(self, dtype: str) -> Iterator[memoryview]:
        """Bytes of the frames, which have the stored dtype already."""
        assert self.frames.dtype == dtype
        return self.frames.blocks()


@dataclass(frozen=True)
class Shard:
    """Contents of a shard; the frames stay in the file.

    Attributes:
        path: File.
        ids: Ids of the N utterances, in order.
        contents: Content hash of each.
        offsets: `[N + 1]`; utterance i has frames `offsets[i]:offsets[i + 1]`.
        crc32: `[N]` CRC-32 of each utterance's bytes.
        stored: Place of the frames in the file, `[sum T, D]` or `[sum T]`.
        spec: Width and kind of the frames.
        provenance: Backbone and settings that computed the frames.
        rounding: `[N]` largest absolute rounding error of each utterance.
        rejected: Reasons by id of the utterances of this shard that could not be computed.
        checksum: SHA-256 over everything else in the file.
        prefix: What its ids begin with in the cache of a union, which is not in the file.
        places: First byte of each dataset in the file, as far as it was read from one.
    """

    path: Path
    ids: tuple[str, ...]
    contents: tuple[str, ...]
    offsets: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    stored: StoredFrames
    spec: StreamSpec
    provenance: Mapping[str, Any]
    rounding: NDArray[np.float64]
    rejected: Mapping[str, str]
    checksum: str
    prefix: str = ""
    places: Mapping[str, int] = field(default_factory=dict)

    @property
    def named(self) -> tuple[str, ...]:
        """Ids of the N utterances as the cache's corpus has them."""
        return tuple(self.prefix + id for id in self.ids) if self.prefix else self.ids

    @property
    def frames(self) -> Array:
        """All frames as a view of the file's pages, which are mapped at first use."""
        return self.stored.array

    def row(self, index: int) -> Row:
        """Row number `index`, without a copy."""
        frames = self.frames[self.offsets[index] : self.offsets[index + 1]]
        return Row(self.ids[index], self.contents[index], frames, float(self.rounding[index]))

    def verify(self) -> None:
        """Read every byte, a block at a time, and compare the checksum.

        Raises:
            CacheError: If anything was altered, naming the damaged utterances where possible.
        """
        try:
            found = checksum_of(self, self.stored.blocks())
        except ValueError as error:  # a flipped byte can make an attribute that JSON cannot hold
            raise DamagedShardError(f"{self.path} is damaged ({error})") from error
        if found == self.checksum:
            return
        wrong = [
            self.ids[i]
            for i in range(len(self.ids))
            if zlib.crc32(raw(self.row(i).frames)) != self.crc32[i]
        ]
        where = f"frames of {wrong[:5]}" if wrong else "ids, offsets or attributes"
        raise DamagedShardError(
            f"{self.path} is damaged ({where}): SHA-256 {found}, expected {self.checksum}; "
            + ADVICE.format(name=self.path.name)
        )


def settings_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without what was measured in one shard alone, which is the same in all shards."""
    return {key: value for key, value in provenance.items() if key != DEVIATION}


def read_shard(path: Path) -> Shard:
    """Read a shard except its frames, and find their place in the file.

    HDF5's lock is not taken: a sealed file does not change, and not every file system has locks.

    Raises:
        DamagedShardError: If the file is truncated or damaged, or its parts do not fit each other,
            listing everything that does not fit.
        CacheError: If the file is missing, foreign or of an unknown version.
    """
    try:
        check_regular(path)
        with h5py.File(path, "r", locking=False) as file:
            shard = _parse(path, file)
    except CacheError:
        raise
    except FileNotFoundError:
        raise CacheError(f"{path} does not exist; run `dvc repro` or `dvc pull`") from None
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The system's refusal, such as too many open files, says nothing about the bytes.
            raise CacheError(
                f"{path} cannot be opened ({error}); check its permissions and `ulimit -n`"
            ) from error
        raise DamagedShardError(
            f"{path} is no readable shard ({error}); it may be truncated or foreign: "
            + ADVICE.format(name=path.name)
        ) from error
    # A number from a file that was pulled must not decide how much memory a batch takes.
    faults = "; ".join(_structure_faults(shard))
    if faults:
        raise DamagedShardError(f"{path} is damaged ({faults}); {ADVICE.format(name=path.name)}")
    return shard


def _parse(path: Path, file: Any) -> Shard:
    size = path.stat().st_size
    attributes = read_attributes(file, size)
    if attributes.get("format") != FORMAT:
        raise CacheError(
            f"{path} has format {attributes.get('format')!r}; expected {FORMAT!r}: it was not "
            f"written by heronry; remove it from {path.parent}"
        )
    if attributes.get("version") != VERSION:
        raise CacheError(
            f"{path} has cache version {attributes.get('version')}; this heronry reads up to "
            f"{VERSION}: upgrade heronry, or extract again"
        )
    found = {name: dataset(file, name, size) for name in DATASETS}
    # HDF5 allocates no place for an empty dataset.
    places = {name: (each.id.get_offset() or 0) if each.size else 0 for name, each in found.items()}
    return Shard(
        path=path,
        ids=tuple(value.decode() for value in found["ids"][:].tolist()),
        contents=tuple(value.decode() for value in found["contents"][:].tolist()),
        offsets=found["offsets"][:],
        crc32=found["crc32"][:],
        stored=_stored(path, found["frames"]),
        spec=StreamSpec(**read_object(attributes["spec"])),
        provenance=read_object(attributes["provenance"]),
        rounding=found["rounding"][:],
        rejected=read_object(attributes["rejected"]),
        checksum=str(attributes["checksum"]),
        places=places,
    )


def _stored(path: Path, dataset: Any) -> StoredFrames:
    """Place of the dataset's values in the file."""
    status = path.stat()
    # HDF5 allocates no place for an empty dataset.
    offset = dataset.id.get_offset() if dataset.size else 0
    if offset is None or (dataset.size and dataset.chunks is not None):
        raise CacheError(f"{path}: `frames` is not contiguous; it was not written by heronry")
    if offset + dataset.nbytes > status.st_size:
        raise DamagedShardError(f"{path} is truncated; " + ADVICE.format(name=path.name))
    return StoredFrames(path, offset, dataset.dtype, dataset.shape, identity(status))


def checksum_of(shard: Shard, frames: Iterable[memoryview]) -> str:
    """SHA-256 over a shard's head and the blocks of its frames."""
    head = [shard.ids, shard.contents, shard.spec.to_dict(), shard.provenance, shard.rejected]
    digest = hashlib.sha256(json.dumps(head, ensure_ascii=False, sort_keys=True).encode())
    for array in (shard.offsets, shard.crc32, shard.rounding):
        # The same bytes may be read with other types and shapes.
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(raw(array))
    digest.update(f"{shard.stored.dtype.str}{shard.stored.shape}".encode())
    for block in frames:
        digest.update(block)
    return digest.hexdigest()


def _structure_faults(shard: Shard) -> Iterator[str]:
    """Everything in which the parts of a shard contradict each other, one line each."""
    spec, frames, offsets, count = shard.spec, shard.stored, shard.offsets, len(shard.ids)
    wrong = list(_spec_faults(spec))
    if wrong:
        yield from wrong
        return
    if len(shard.contents) != count:
        yield f"`contents` is for {len(shard.contents)} utterances; expected {count}, as in `ids`"
    shapes = {"crc32": shard.crc32.shape, "rounding": shard.rounding.shape}
    for name, shape in (shapes | {"offsets": offsets.shape}).items():
        # `offsets` holds the end of the last utterance too.
        length = count + (name == "offsets")
        if shape != (length,):
            yield f"`{name}` has the shape {shape}; expected {(length,)}"
    bins = spec.bins is not None
    if len(frames.shape) != (1 if bins else 2) or (not bins and frames.shape[1] != spec.dim):
        wanted = "[T]" if bins else f"[T, {spec.dim}]"
        yield f"`frames` has the shape {frames.shape}; expected {wanted} by its `spec`"
    if frames.dtype.name not in DTYPES or (frames.dtype.name == "int16") != bins:
        wanted = "int16" if bins else "float16 or float32"
        yield f"`frames` is {frames.dtype}; expected {wanted} by its `spec`"
    if spec.layers < 1 or spec.dim % spec.layers:
        yield f"frames {spec.dim} wide cannot hold {spec.layers} layers side by side"
    if offsets.dtype.kind != "i":
        yield f"`offsets` is {offsets.dtype}; expected int64"
    elif offsets.shape == (count + 1,) and frames.shape:
        yield from _offset_faults(offsets, frames.shape[0])


def _spec_faults(spec: StreamSpec) -> Iterator[str]:
    """Values of `spec` of the wrong type: JSON checks none."""
    for name in ("dim", "bins", "layers"):
        value = getattr(spec, name)
        # Not isinstance, since True is an int.
        if type(value) is not int and not (name == "bins" and value is None):
            yield f"`spec` says {name} {value!r}; expected an integer"
    if spec.hop_seconds is not None and type(spec.hop_seconds) not in (int, float):
        yield f"`spec` says hop_seconds {spec.hop_seconds!r}; expected a number or null"


def _offset_faults(offsets: NDArray[np.int64], frames: int) -> Iterator[str]:
    if offsets[0] != 0 or offsets[-1] != frames:
        yield f"`offsets` runs from {offsets[0]} to {offsets[-1]}; expected 0 to {frames} frames"
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(falls):
        yield f"`offsets` falls at utterance number {falls[0]}"
