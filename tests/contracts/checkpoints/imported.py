"""Small folders of imported shards, for the utterances that tests/conftest.py makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.utterance import Utterance
from features.files.reasons import REJECTED, write_reasons
from features.stream import StreamSpec


def _write(folder: Path, *, bins: int | None) -> dict[str, Any]:
    random = np.random.default_rng(1)
    spec = StreamSpec(dim=6 if bins is None else 1, bins=bins)
    source = {"corpus": "tones", "reads": "text", "source": "here", "sha256": "0" * 64}
    dtype = "float32" if bins is None else "int16"
    writer = CacheWriter(spec=spec, provenance={"imported": source}, dtype=dtype)
    rows = []
    for number in range(8):
        id = f"u{number}"
        text = f"this is utterance {'number ' * (number % 5)}{number}"
        values: NDArray[Any] = random.normal(size=(4 + number % 3, 6)).astype(np.float32)
        if bins is not None:
            values = random.integers(0, bins, 5 + number % 3)
        rows.append(writer.round(id, str(Utterance(id, text=text).text_content), values))
    writer.write(folder / shard_name(0), rows)
    write_reasons(folder / REJECTED, {})
    return {"checkpoint": str(folder)} | ({} if bins is None else {"bins": bins})


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "frames": lambda folder: _write(folder, bins=None),
    "bins": lambda folder: _write(folder, bins=32),
}
