"""Costs of a cache besides reading: writing it, memory to verify it, open files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.contenders import Rows, shards, writer
from benchmarks.shared.rounds import interleave, ratio
from features.cache.reader import CacheReader
from features.cache.shard import Row

# In a process of its own, since the high-water mark of this one is long past.
GROWTH = """
import json, pathlib, re, sys
from features.cache.reader import CacheReader
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
reader = CacheReader(pathlib.Path(sys.argv[1]), access="map")
found = [peak()]
for shard in reader.shards:
    shard.verify()
found.append(peak())
for shard in reader.shards:
    shard.frames.view("u1").max()
found.append(peak())
print(json.dumps(found))
"""


def write_rounds(folder: Path, rows: Rows, rounds: int) -> dict[str, Any]:
    """Seconds of raw writing, and of checksums, over those of writing shards."""
    parts = shards(rows)
    joined = [np.concatenate([row.frames for row in part]) for part in parts]
    target = folder / "written"

    def ours() -> float:
        start = time.perf_counter()
        for part in parts:
            target.unlink(missing_ok=True)
            writer(rows).write(target, part)
        return time.perf_counter() - start

    def raw() -> float:
        start = time.perf_counter()
        for frames in joined:
            target.unlink(missing_ok=True)
            with target.open("wb") as file:
                file.write(frames.data)
                file.flush()
                os.fsync(file.fileno())
        return time.perf_counter() - start

    seconds = interleave(
        {"heronry": ours, "raw_disk": raw, "checksums": lambda: _checksums(parts)}, rounds
    )
    return {
        "raw_over_heronry": ratio(seconds["raw_disk"], seconds["heronry"]),
        "checksums_over_heronry": ratio(seconds["checksums"], seconds["heronry"]),
    }


def _checksums(parts: list[list[Row]]) -> float:
    start = time.perf_counter()
    for part in parts:
        digest = hashlib.sha256()
        for row in part:
            frames = np.ascontiguousarray(row.frames)
            digest.update(frames.data)
            zlib.crc32(frames.data)
    return time.perf_counter() - start


def verify_growth(folder: Path) -> dict[str, float]:
    """MiB by which memory grows: by comparing checksums, and by then touching all mapped pages."""
    words = [sys.executable, "-c", GROWTH, str(folder)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    opened, verified, touched = json.loads(done.stdout)
    return {
        "verify_mib": round((verified - opened) / 1024, 1),
        "touched_map_mib": round((touched - verified) / 1024, 1),
    }


def descriptors(folder: Path) -> dict[str, int]:
    """Shards of a cache, and files that a reader holds open once it has read from all."""
    held = Path("/proc/self/fd")
    before = len(list(held.iterdir()))
    reader = CacheReader(folder, access="map")
    for shard in reader.shards:
        reader.batch([shard.ids[0]])
    return {"shards": len(reader.shards), "held": len(list(held.iterdir())) - before}
