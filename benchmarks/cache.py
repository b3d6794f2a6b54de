"""Speed of reading and writing caches: ours, an array in memory, and one array per utterance.

    python -m benchmarks.cache [--json] [--small] [--rounds 5] [--folder DISK]

A unit is an epoch of shuffled batches of 32, each a padded tensor and its mask, the same for every
contender (compared first). Ratios are their seconds over ours: above 1, ours is faster. `in_ram` is
their ratio to a gather in memory by our loops, which bounds what a reader with these loops reaches.

- `frames`, `tokens`, `pooled`: utterances of 50-500 frames, of 5-40, and of one vector; padded
  float32 and float16 batches, and `packed`: rows end to end as stored, which is reading alone.
  `heronry` is `access="map"`; `heronry_read` the same shards by positioned reads.
- `cold`: all files are dropped from the page cache before each epoch, which includes opening. What
  the system knows of folders stays warm, which favours one file per utterance.
- `beyond_memory`: they are dropped before each batch, as if the cache were many times the memory.
- `write`: raw `write` and `fsync` of the same bytes, and the checksums that a shard holds.
- `verify`: MiB by which the resident memory of a process grows while it compares all checksums.
- `descriptors`: files that an open reader holds.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.shared.cache_costs import descriptors, verify_growth, write_rounds
from benchmarks.shared.contenders import PEERS, Contender, Gather, Heronry, Rows, Setup
from benchmarks.shared.page_cache import disk_bytes, evicted
from benchmarks.shared.rounds import interleave, ratio
from features.cache.reader import Access

BATCH = 32
GOALS = {
    "in_ram_gather": 0.7,
    "hdf5_per_utterance": 8,
    "npy_per_utterance": 4,
    "pt_per_utterance": 8,
}


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    small: Annotated[bool, typer.Option("--small", help="Tiny caches, to try it out.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each contender runs.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="On the disk to measure.")] = None,
) -> None:
    """Measure and print ratios."""
    torch.set_num_threads(1)  # as training jobs
    setups = {"frames": Setup(1400, 50, 500), "tokens": Setup(4000, 5, 40)}
    setups["pooled"] = Setup(4000, 1, 1)
    if small:
        setups = {"frames": Setup(70, 5, 50, 16), "pooled": Setup(70, 1, 1, 16)}
    result: dict[str, Any] = {"rounds": rounds}
    with tempfile.TemporaryDirectory(dir=folder, prefix="heronry-benchmark-") as made:
        for name, setup in setups.items():
            result[name] = measure(Path(made) / name, setup, rounds)
        frames = setups["frames"].rows()
        ours = Path(made) / "frames" / "heronry"
        result["beyond_memory"] = beyond_memory(ours, frames, rounds)
        result["write"] = write_rounds(Path(made), frames, rounds)
        result["verify"] = verify_growth(ours)
        result["descriptors"] = descriptors(ours)
    print(json.dumps(result) if as_json else table(result))


def measure(folder: Path, setup: Setup, rounds: int) -> dict[str, Any]:
    """Ratios of all contenders, warm and cold."""
    rows = setup.rows()
    makers = make(folder, rows)
    warm = {name: maker() for name, maker in makers.items()}
    assert_equal(warm, next(batches(rows, 0)))
    found: dict[str, Any] = {
        "utterances": len(rows),
        "megabytes": round(sum(frames.nbytes for frames in rows.values()) / 1e6, 1),
    }
    for kind, dtype in {"float32": torch.float32, "float16": torch.float16}.items():
        turns = {name: partial(epoch, made, rows, dtype) for name, made in warm.items()}
        interleave(turns, 1)
        found[f"warm_{kind}"] = ratios(interleave(turns, rounds))
    packed = {name: partial(packed_epoch, made, rows) for name, made in warm.items()}
    found["warm_packed"] = ratios(interleave(packed, rounds))
    del warm, turns, packed  # pages that are still mapped cannot be dropped
    disk: dict[str, float] = {}
    cold = {
        name: partial(cold_epoch, maker, folder / name.removesuffix("_read"), rows, disk)
        for name, maker in makers.items()
        if name != "in_ram_gather"
    }
    found["cold_float32"] = ratios(interleave(cold, rounds))
    size = sum(frames.nbytes for frames in rows.values())
    found["cold_read_from_disk"] = {n: round(read / size, 2) for n, read in disk.items()}
    return found


def make(folder: Path, rows: Rows) -> dict[str, Callable[[], Contender]]:
    """Write the rows in all formats; what opens each."""
    for name, kind in {"heronry": Heronry, **PEERS}.items():
        (folder / name).mkdir(parents=True)
        kind.write(folder / name, rows)
    os.sync()  # pages that are not yet on the disk cannot be dropped
    ours = folder / "heronry"
    gather = Gather(rows)
    return {
        "heronry": lambda: Heronry(ours, "map"),
        "heronry_read": lambda: Heronry(ours, "read"),
        "in_ram_gather": lambda: gather,
        **{name: partial(kind, folder / name) for name, kind in PEERS.items()},
    }


def batches(rows: Rows, seed: int) -> Iterator[list[str]]:
    """All ids once, shuffled, 32 at a time."""
    ids = list(rows)
    order = np.random.default_rng(seed).permutation(len(ids)).tolist()
    for start in range(0, len(ids), BATCH):
        yield [ids[i] for i in order[start : start + BATCH]]


def epoch(contender: Contender, rows: Rows, dtype: torch.dtype) -> float:
    """Seconds of one epoch."""
    start = time.perf_counter()
    for ids in batches(rows, 1):
        contender.batch(ids, dtype)
    return time.perf_counter() - start


def packed_epoch(contender: Contender, rows: Rows) -> float:
    """Seconds of one epoch of batches that are neither padded nor converted."""
    start = time.perf_counter()
    for ids in batches(rows, 1):
        contender.packed(ids)
    return time.perf_counter() - start


def cold_epoch(
    maker: Callable[[], Contender], folder: Path, rows: Rows, disk: dict[str, float]
) -> float:
    """Seconds of opening and of one epoch, with nothing of the files in the page cache.

    Puts into `disk` the fewest bytes that came from there in any round, by folder.
    """
    evicted(folder)
    before = disk_bytes()
    start = time.perf_counter()
    contender = maker()
    opened = time.perf_counter() - start
    seconds = opened + epoch(contender, rows, torch.float32)
    read = disk_bytes() - before
    disk[folder.name] = min(read, disk.get(folder.name, read))
    return seconds


def beyond_memory(folder: Path, rows: Rows, rounds: int) -> dict[str, Any]:
    """Batches of which nothing is in the page cache, by both kinds of access."""
    chosen = list(batches(rows, 2))[:10]

    def cold_batches(access: Access) -> float:
        total = 0.0
        for ids in chosen:
            reader = Heronry(folder, access)  # a map would keep pages from being dropped
            evicted(folder)
            start = time.perf_counter()
            reader.batch(ids, torch.float32)
            total += time.perf_counter() - start
        return total

    seconds = interleave(
        {
            "heronry_read": partial(cold_batches, "read"),
            "heronry_map": partial(cold_batches, "map"),
        },
        rounds,
    )
    return {
        "map_over_read": ratio(seconds["heronry_map"], seconds["heronry_read"]),
        "milliseconds_per_batch": {
            name: round(1e3 * statistics.median(found) / len(chosen), 1)
            for name, found in seconds.items()
        },
    }


def assert_equal(contenders: Mapping[str, Contender], ids: list[str]) -> None:
    """Stop unless all make the same batch."""
    for dtype in (torch.float32, torch.float16):
        streams = {name: each.batch(ids, dtype) for name, each in contenders.items()}
        wanted = streams["in_ram_gather"]
        for name, stream in streams.items():
            same = torch.equal(stream.values, wanted.values), torch.equal(stream.mask, wanted.mask)
            if same != (True, True) or stream.values.dtype != dtype:
                raise SystemExit(f"{name} makes another batch than in_ram_gather: nothing to time")


def ratios(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Everybody's ratio to ours and to the gather in memory, and our seconds."""
    found: dict[str, Any] = {"heronry_seconds": round(statistics.median(seconds["heronry"]), 3)}
    for name, theirs in seconds.items():
        if name != "heronry":
            found[name] = ratio(theirs, seconds["heronry"])
            if "in_ram_gather" in seconds:
                found[name]["in_ram"] = ratio(theirs, seconds["in_ram_gather"])
    return found


def table(result: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = []
    for section in ("frames", "tokens", "pooled"):
        for part, found in result.get(section, {}).items():
            if not isinstance(found, dict) or "heronry_seconds" not in found:
                continue
            lines.append(f"{section} {part}: ours {found['heronry_seconds']} s an epoch")
            for name, value in found.items():
                if name != "heronry_seconds":
                    goal = f"goal {GOALS[name]}" if name in GOALS else ""
                    bound = f"in_ram {value['in_ram']['median']}" if "in_ram" in value else ""
                    figures = f"{value['median']:6} {value['range']!s:16} {bound:13}"
                    lines.append(f"  {name:26} {figures} {goal}")
    costs = ("beyond_memory", "write", "verify", "descriptors")
    return "\n".join([*lines, *(f"{cost}: {json.dumps(result[cost])}" for cost in costs)])


if __name__ == "__main__":
    typer.run(main)
