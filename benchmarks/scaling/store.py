"""Cost of caches and of the work store by utterances: doctor, and what is found in old shards.

    python -m benchmarks.scaling.store [--json] [--sizes 10000,100000,1000000] [--shard-seconds 500]
        [--widths 1024,4096,16384]

Corpora of made-up utterances of 5 s on the average, in shards of 500 s (about 100 utterances), each
with one frame of one value, so that what is measured is all but the frames. Making them is not
timed; each measurement is a fresh process.

- `doctor`: `heronry doctor` on a sound cache: its format, and its manifest.
- `contents`: the work store is asked for a new utterance, for the first time, once more, and after
  a shard was added; then for rows in random order, as many at a time as a shard has, most of which
  lie in shards of their own.

- `widths`: peaks of extracting 100 clips of 4 s, 20,000 frames of so many values, as one shard.

Seconds are of processor time, peaks of resident memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.memory import alone, peak_mib, peak_of
from benchmarks.scaling.manifest import write_manifest
from benchmarks.shared.clips import make_clips
from features.backbone.base import content_of
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
ASKED, GROUP = 5000, 100  # rows in all, and at a time
FRAMES = np.zeros((1, 1), np.float16)
ENTRY = BackboneEntry("tone", "tone")
Figures = dict[str, Any]


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sizes: Annotated[str, typer.Option(help="Numbers of utterances.")] = "10000,100000,1000000",
    shard_seconds: Annotated[float, typer.Option(help="Of a shard.")] = SHARD_SECONDS,
    widths: Annotated[str, typer.Option(help="Values of a frame.")] = "1024,4096,16384",
) -> None:
    """Measure and print by number of utterances."""
    result: Figures = {}
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        for size in map(int, sizes.split(",") if sizes else ()):
            folder = Path(made) / str(size)
            make(folder, size, shard_seconds)
            result[str(size)] = {
                "doctor": alone(_doctor, folder),
                "contents": alone(_contents, folder),
            }
            shutil.rmtree(folder)
        for width in map(int, widths.split(",") if widths else ()):
            folder = Path(made) / f"wide-{width}"
            manifest = make_clips(folder, [4.0] * 100, shard_seconds=SHARD_SECONDS)
            entry = BackboneEntry("wide", "tone", options={"dim": width})
            peak = alone(peak_of, entry, manifest, folder)
            result.setdefault("peak_mib_by_width", {})[str(width)] = round(peak)
            shutil.rmtree(folder)
    print(json.dumps(result, indent=None if as_json else 1))


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


def _contents(folder: Path) -> Figures:
    manifest = Manifest.read(folder)
    name = next((folder / "store").iterdir()).name
    figures: Figures = {}
    for what in ("first", "again", "one_more_shard"):
        if what == "one_more_shard":
            more = PlannedShard(0, (manifest[0],), (_hash("more"),))
            path = WorkStore(folder / "store", name).path(more.fingerprint)
            _write(path, more, ENTRY.provenance(ENTRY.build()))
        store, before, start = WorkStore(folder / "store", name), resident(), _seconds()
        assert not store.held([_hash("new")])
        figures[f"{what}_seconds"] = round(_seconds() - start, 3)
        figures[f"{what}_held_mib"] = round((resident() - before) / 2**20, 1)
    wanted = np.random.default_rng(0).permutation(len(manifest))[:ASKED].tolist()
    asked = [content_of(manifest[place], "audio") or "" for place in wanted]
    start, begin = _seconds(), time.perf_counter()
    rows = [list(store.rows(asked[i : i + GROUP])) for i in range(0, ASKED, GROUP)]
    assert sum(map(len, rows)) == ASKED
    figures["row_cpu_ms"] = round((_seconds() - start) / ASKED * 1e3, 4)
    figures["row_clock_ms"] = round((time.perf_counter() - begin) / ASKED * 1e3, 4)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").count(".h5")
    return figures | {"maps": maps, "peak_mib": round(peak_mib())}


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seconds() -> float:
    """Seconds of processor time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def make(folder: Path, count: int, shard_seconds: float = SHARD_SECONDS) -> None:
    """Write a manifest, its shards into a work store, and a cache folder of links to them."""
    manifest = manifest_of(folder, count, shard_seconds)
    backbone = ENTRY.build()
    provenance = ENTRY.provenance(backbone)
    store = WorkStore(folder / "store", fingerprint(provenance))
    store.folder.mkdir(parents=True)
    (folder / "cache").mkdir()
    for planned in plan_shards(manifest, "audio", None):
        path = store.path(planned.fingerprint)
        _write(path, planned, provenance)
        (folder / "cache" / shard_name(planned.number)).hardlink_to(path)
    write_reasons(folder / "cache" / REJECTED, {})


def manifest_of(folder: Path, count: int, shard_seconds: float = SHARD_SECONDS) -> Manifest:
    """A manifest whose rows stay in its file."""
    write_manifest(folder, count)
    head = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    head["shard_seconds"] = shard_seconds
    (folder / "corpus.json").write_text(json.dumps(head), encoding="utf-8")
    return Manifest.read(folder)


def _write(path: Path, planned: PlannedShard, provenance: dict[str, Any]) -> None:
    pairs = zip(planned.utterances, planned.contents, strict=True)
    rows = [Row(utterance.id, content, FRAMES) for utterance, content in pairs]
    write_shard(path, rows, spec=StreamSpec(1), provenance=provenance, dtype="float16")


if __name__ == "__main__":
    typer.run(main)
