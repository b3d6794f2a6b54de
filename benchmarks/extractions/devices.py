"""Extraction on several devices, with a network that is slow and one that takes no time.

    python -m benchmarks.extractions.devices [--against FOLDER] [--devices 1,2,4] [--shards 16]
        [--networks slow,fast] [--shard-seconds 240] [--rounds 3]

Devices are CPUs. `slow` waits 0.4 s for each shard, without computing, so that two cores stand for
several devices; `fast` does not wait, and what remains is decoding, rounding, writing, and what
distributing shards costs. Loaders are as many as by default. `--against` names another checkout of
this project (such as a worktree of an earlier commit), which takes turns with this one and runs the
same file.

Printed as JSON, by network and number of devices: seconds a shard, from the moment when all devices
are at their first clip (before, processes start, which imports torch in each) to the last shard,
and seconds altogether. Goals: `slow` takes a shard's 0.4 s over the number of devices, and `fast`
no longer on several devices than on one. All caches have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.shared.clips import make_clips
from benchmarks.shared.rounds import interleave
from features.backbone.base import Backbone, Inputs
from features.backbone.entry import BackboneEntry
from features.backbones.tone import Tone
from features.corpus.manifest import Manifest
from features.extraction.extract import Options, extract
from features.stream import Stream

CLIPS = 24  # of a shard
# Seconds that a network waits for each shard; 0.4: HuBERT base on an A100, by operations.
NETWORKS = {"slow": 0.4, "fast": 0.0}
HERE = Path(__file__).resolve().parents[2]
Row = dict[str, Any]


@dataclass(frozen=True)
class Paced(BackboneEntry):
    """A tone that waits before each batch, and before the first one for all other devices.

    Attributes:
        wait: Seconds.
        present: Folder with a file for each device that has begun.
        devices: Number of devices.
    """

    wait: float = 0.0
    present: Path = Path()
    devices: int = 1

    def build(self) -> Backbone:
        """The backbone."""
        return PacedTone(self)


class PacedTone(Tone):
    """The backbone of `Paced`."""

    def __init__(self, entry: Paced) -> None:
        super().__init__()
        self.entry = entry
        self.begun = False

    def __call__(self, inputs: Inputs) -> Stream:
        """As a tone, after waiting."""
        if not self.begun:
            self.begun = True
            (self.entry.present / str(os.getpid())).touch()
            while len(list(self.entry.present.iterdir())) < self.entry.devices:
                time.sleep(0.01)
        time.sleep(self.entry.wait)
        return super().__call__(inputs)


def main(
    *,
    against: Annotated[Path | None, typer.Option(help="Another checkout of this project.")] = None,
    devices: Annotated[str, typer.Option(help="Numbers of devices.")] = "1,2,4",
    shards: Annotated[int, typer.Option(min=2)] = 16,
    shard_seconds: Annotated[float, typer.Option(help="Of audio in a shard.")] = 240.0,
    networks: Annotated[str, typer.Option(help="slow, fast.")] = "slow,fast",
    rounds: Annotated[int, typer.Option(help="How often each runs.", min=1)] = 3,
    turn: Annotated[str, typer.Option(hidden=True, help="What a process of a turn does.")] = "",
) -> None:
    """Measure and print."""
    if turn:
        print(json.dumps(taken(**json.loads(turn))))
        return
    trees = {"this": HERE, **({} if against is None else {"against": against.resolve()})}
    counts = [int(count) for count in devices.split(",")]
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        folder = Path(made)
        clips = [shard_seconds / CLIPS] * (CLIPS * shards)
        make_clips(folder / "audio", clips, shard_seconds=shard_seconds).write(folder / "manifest")
        found = {
            name: measured(folder, NETWORKS[name] / CLIPS, trees, counts, rounds)
            for name in networks.split(",")
        }
    print(json.dumps({"shards": shards, "rounds": rounds, "cores": os.cpu_count(), **found}))


def measured(
    folder: Path, wait: float, trees: dict[str, Path], counts: Sequence[int], rounds: int
) -> Row:
    """Seconds a shard, and altogether, by checkout and number of devices."""
    turns: dict[tuple[str, int], list[Row]] = {}
    contents: set[str] = set()

    def take(tree: str, count: int) -> float:
        row = _in_process(trees[tree], folder=str(folder), wait=wait, devices=count)
        contents.add(row.pop("contents"))
        turns.setdefault((tree, count), []).append(row)
        return float(row["seconds"])

    pairs = [(tree, count) for count in counts for tree in trees]
    ways = {f"{tree} {count}": partial(take, tree, count) for tree, count in pairs}
    interleave(ways, rounds, quiet=math.inf)
    assert len(contents) == 1, "the caches differ"
    return {
        tree: {
            str(count): {
                key: [round(row[key], 3) for row in turns[tree, count]]
                + [f"median {statistics.median(row[key] for row in turns[tree, count]):.3f}"]
                for key in ("seconds_a_shard", "seconds")
            }
            for count in counts
        }
        for tree in trees
    }


def _in_process(tree: Path, **given: Any) -> Row:
    """A turn in a process that has its modules, but this one, from a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--turn", json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, env=environment, cwd=tree, stdout=subprocess.PIPE, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def taken(folder: str, wait: float, devices: int) -> Row:
    """Extract into a new work store; seconds, and a hash of the cache."""
    manifest = Manifest.read(Path(folder, "manifest"))
    with tempfile.TemporaryDirectory(dir=folder) as made:
        store, out, present = Path(made, "store"), Path(made, "out"), Path(made, "present")
        present.mkdir()
        entry = Paced("paced", "tone", wait=wait, present=present, devices=devices)
        began = time.perf_counter()
        extract(manifest, entry, out, store=store, options=Options(devices=("cpu",) * devices))
        seconds = time.perf_counter() - began
        start, (end, shards) = _last(present, "*")[0], _last(store, "*/*.h5")
        hashed = hashlib.sha256()
        for path in sorted(out.iterdir()):
            hashed.update(path.read_bytes())
    return {
        "seconds_a_shard": (end - start) / shards,
        "seconds": seconds,
        "contents": hashed.hexdigest(),
    }


def _last(folder: Path, pattern: str) -> tuple[float, int]:
    """When the last of some files was written, in seconds, and their number."""
    times = [path.stat().st_mtime for path in folder.glob(pattern)]
    return max(times), len(times)


if __name__ == "__main__":
    typer.run(main)
