"""Cost of caches and of the work store by utterances: doctor, and what is found in old shards.

    python -m benchmarks.scaling_store doctor [--json] [--sizes 10000,100000,1000000]

Corpora of made-up utterances of 5 s on the average, in shards of 500 s (about 100 utterances), each
with one frame of one value, so that what is measured is all but the frames. Making them is not
timed; each measurement is a fresh process.

- `doctor`: `heronry doctor` on a sound cache: its format, and its manifest.

Seconds are of processor time, peaks of resident memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.memory import alone, peak_mib
from benchmarks.scaling import write_manifest
from features.backbone.entry import BackboneEntry, fingerprint
from features.cache.shard import Row, shard_name
from features.cache.writer import write_shard
from features.corpus.manifest import Manifest
from features.doctor.folder import check_against, check_cache
from features.extraction.plan import PlannedShard, plan_shards
from features.extraction.store import WorkStore
from features.files.reasons import REJECTED, write_reasons
from features.stream import StreamSpec

SHARD_SECONDS = 500.0
FRAMES = np.zeros((1, 1), np.float16)
ENTRY = BackboneEntry("tone", "tone")
Figures = dict[str, Any]
app = typer.Typer(add_completion=False)
Sizes = Annotated[str, typer.Option(help="Numbers of utterances.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def main() -> None:
    """Measure by number of utterances."""


@app.command()
def doctor(*, sizes: Sizes = "10000,100000,1000000", as_json: AsJson = False) -> None:
    """Find no fault in a sound cache."""
    _report(_doctor, sizes, as_json=as_json)


def _doctor(folder: Path) -> Figures:
    start = _seconds()
    cache = check_cache(folder / "cache")
    read = _seconds()
    faults = [*cache.faults, *check_against(cache, Manifest.read(folder))]
    assert not faults, faults
    end = _seconds()
    return {
        "shards": len(cache.shards),
        "read_seconds": round(read - start, 1),
        "compare_seconds": round(end - read, 1),
        "peak_mib": round(peak_mib()),
    }


def _seconds() -> float:
    """Seconds of processor time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def _report(measure: Callable[[Path], Figures], sizes: str, *, as_json: bool) -> None:
    result = {}
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        for size in map(int, sizes.split(",")):
            folder = Path(made) / str(size)
            make(folder, size)
            result[str(size)] = alone(measure, folder)
            shutil.rmtree(folder)
    print(json.dumps(result) if as_json else json.dumps(result, indent=1))


def make(folder: Path, count: int) -> None:
    """Write a manifest, its shards into a work store, and a cache folder of links to them."""
    manifest = manifest_of(folder, count)
    backbone = ENTRY.build()
    provenance = ENTRY.provenance(backbone)
    store = WorkStore(folder / "store", fingerprint(provenance))
    store.folder.mkdir(parents=True)
    (folder / "cache").mkdir()
    for planned in plan_shards(manifest, "audio"):
        path = store.path(planned.fingerprint)
        _write(path, planned, provenance)
        (folder / "cache" / shard_name(planned.number)).hardlink_to(path)
    write_reasons(folder / "cache" / REJECTED, {})


def manifest_of(folder: Path, count: int) -> Manifest:
    """A manifest whose rows stay in its file."""
    write_manifest(folder, count)
    head = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    head["shard_seconds"] = SHARD_SECONDS
    (folder / "corpus.json").write_text(json.dumps(head), encoding="utf-8")
    return Manifest.read(folder)


def _write(path: Path, planned: PlannedShard, provenance: dict[str, Any]) -> None:
    pairs = zip(planned.utterances, planned.contents, strict=True)
    rows = [Row(utterance.id, content, FRAMES) for utterance, content in pairs]
    write_shard(path, rows, spec=StreamSpec(1), provenance=provenance, dtype="float16")


if __name__ == "__main__":
    app()
