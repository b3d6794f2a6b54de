"""Whether the parts of a shard fit each other, so that rows can be cut out of its frames at all.

Every reader asks, before it trusts an offset or a width: a number out of a file that was pulled
must not decide how much memory is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from features.errors import DamagedShardError
from features.shard import ADVICE, DTYPES, Shard
from features.stream import StreamSpec


def check_structure(shard: Shard) -> None:
    """Refuse a shard whose parts do not fit each other.

    Raises:
        DamagedShardError: Listing everything that does not fit.
    """
    faults = list(structure_faults(shard))
    if faults:
        advice = ADVICE.format(name=shard.path.name)
        raise DamagedShardError(f"{shard.path} is damaged ({'; '.join(faults)}); {advice}")


def structure_faults(shard: Shard) -> Iterator[str]:
    """Everything that does not fit, one line each."""
    spec, frames, offsets, count = shard.spec, shard.stored, shard.offsets, len(shard.ids)
    wrong = list(_spec_faults(spec))
    if wrong:
        yield from wrong
        return
    if len(shard.contents) != count:
        yield f"`contents` is for {len(shard.contents)} utterances; expected {count}, as in `ids`"
    shapes = {"crc32": shard.crc32.shape, "rounding": shard.rounding.shape}
    for name, shape in (shapes | {"offsets": offsets.shape}).items():
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
    """Values of `spec` that are no numbers, which is all that JSON promises."""
    for name in ("dim", "bins", "layers"):
        value = getattr(spec, name)
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
