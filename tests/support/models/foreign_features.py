"""Features as other programs leave them, and their way through an import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from features.backbone.entry import backbone_entry
from features.corpus.manifest import Manifest
from features.exchange.arrays import ArrayReader
from features.exchange.importer import Importer, ImportSettings, Parity
from features.extraction.extract import Extraction, extract

SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8]  # shards of 2 s: u0-u3, u4
OUT = Path("imports/tones/old")
Arrays = dict[str, NDArray[Any]]


def prepare(manifest: Manifest) -> Manifest:
    manifest.write(Path("data/tones/utterances"))
    return manifest


def arrays(width: int = 4, dtype: str = "float32") -> Arrays:
    """Of different lengths, each with values of its own."""
    random = np.random.default_rng(0)
    return {f"u{i}": random.normal(size=(i + 2, width)).astype(dtype) for i in range(len(SECONDS))}


def as_npy(values: Arrays) -> Path:
    folder = Path("old")
    folder.mkdir(exist_ok=True)
    for id, array in values.items():
        np.save(folder / f"{id}.npy", array)
    return folder


def as_safetensors(values: Arrays) -> Path:
    save_file(values, "old.safetensors")
    return Path("old.safetensors")


def as_torch(values: Arrays) -> Path:
    folder = Path("old/session1")
    folder.mkdir(parents=True)
    for id, array in values.items():
        torch.save({"hidden": torch.from_numpy(array), "epoch": 3}, folder / f"{id}.pt")
    return Path("old")


def as_torch_file(values: Arrays) -> Path:
    torch.save({id: torch.from_numpy(array) for id, array in values.items()}, "old.pt")
    return Path("old.pt")


def as_index(values: Arrays) -> Path:
    """Files under meaningless names, one of them with two arrays."""
    folder = Path("old")
    folder.mkdir()
    lines, ids = ["id,file,key"], list(values)
    for number, id in enumerate(ids[:-2]):
        np.save(folder / f"{number}.npy", values[id])
        lines.append(f"{id},{number}.npy,")
    save_file({"a": values[ids[-2]], "b": values[ids[-1]]}, folder / "rest.safetensors")
    lines += [f"{ids[-2]},rest.safetensors,a", f"{ids[-1]},rest.safetensors,b"]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def take(manifest: Manifest, source: Path, **settings: Any) -> Parity:
    with ArrayReader() as reader:
        importer = Importer(manifest, source, reader, ImportSettings("tones", "old", **settings))
        found = importer.check()
        importer.write(OUT)
    return found


def extracted(manifest: Manifest, found: Parity, store: Path, **options: Any) -> Extraction:
    entry = {
        "kind": "imported",
        "checkpoint": str(OUT),
        "revision": found.revision,
        "store_dtype": "float16" if found.dtype == "float16" else "float32",
        **options,
    }
    out = Path("cache/tones/old")
    return extract(manifest, backbone_entry("old", entry), out, store=store)
