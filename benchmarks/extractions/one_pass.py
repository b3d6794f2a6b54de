"""Three entries of one network in one pass, against the deepest of them alone and all separately.

    python -m benchmarks.extractions.one_pass [--networks hubert-base,whisper-tiny] [--clips 6]
        [--seconds 5] [--rounds 3] [--device cpu]

The entries are the last layer, a layer below it, and the mean over time of the last one. The
networks have random weights of real architecture and size (benchmarks/shared/networks.py). Turns
are interleaved; each begins with an empty work store. Loading weights, which each entry does for
its key, is timed by itself (`loading_seconds`, of one entry and of three).

Printed as JSON: seconds and CPU seconds (of all threads, which other programs on the machine
disturb less) of each way, and the ratios of the pass of three and of three separate extractions to
the deepest alone, round by round. Goal: at most 1.1 for the pass. The bytes of all are compared.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.shared.clips import make_clips
from benchmarks.shared.networks import NETWORKS
from benchmarks.shared.rounds import interleave, ratio
from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.extraction.extract import Options, extract_with
from features.extraction.extractor import Extractor, Recipe
from features.extraction.store import WorkStore

BELOW = {"hubert-base": 9, "whisper-tiny": 2}


class Way:
    """Extraction of some entries, with their weights loaded, into a new work store.

    Args:
        groups: Entries of each extraction, one after the other; those of a group in one pass.
        manifest: Clips.
        folder: Where all is written.
        device: Where networks run.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[BackboneEntry]],
        manifest: Manifest,
        folder: Path,
        device: str,
    ) -> None:
        self.manifest, self.folder, self.device = manifest, folder, device
        begin, self.extractors = time.perf_counter(), []
        for first, *others in groups:
            extractor = Extractor(Recipe(first, folder), device)
            left_out = extractor.take_along(others)
            assert not left_out, left_out
            self.extractors.append(extractor)
        self.loading_seconds = time.perf_counter() - begin
        self.cpu_seconds: list[float] = []

    def run(self) -> float:
        """Seconds of a turn."""
        shutil.rmtree(self.folder, ignore_errors=True)
        siblings = [list(extractor.siblings) for extractor in self.extractors]
        start, cpu = time.perf_counter(), time.process_time()
        for number, extractor in enumerate(self.extractors):
            for output in extractor.outputs:
                output.store = WorkStore(self.folder / "store", output.store.folder.name)
            out = self.folder / f"out{number}"
            out.mkdir(parents=True)
            extract_with(extractor, self.manifest, out, Options(devices=(self.device,)))
        self.cpu_seconds.append(time.process_time() - cpu)
        seconds = time.perf_counter() - start
        assert [list(extractor.siblings) for extractor in self.extractors] == siblings
        return seconds

    def shards(self) -> dict[str, bytes]:
        """Bytes of all shards in the store, by path."""
        store = self.folder / "store"
        found = sorted(store.rglob("*.h5"))
        return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def main(
    *,
    networks: Annotated[str, typer.Option(help="Some of benchmarks/shared/networks.py.")] = (
        "hubert-base,whisper-tiny"
    ),
    clips: Annotated[int, typer.Option(min=1)] = 6,
    seconds: Annotated[float, typer.Option(help="Of a clip.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="How often each runs.", min=1)] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
) -> None:
    """Measure and print."""
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "clips": clips, "rounds": rounds}
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        folder = Path(made)
        manifest = make_clips(folder / "audio", [seconds] * clips)
        for name in networks.split(","):
            found[name] = measured(name, manifest, folder / name, rounds, device)
    print(json.dumps(found, indent=1))


def measured(
    name: str, manifest: Manifest, folder: Path, rounds: int, device: str
) -> dict[str, Any]:
    """The three ways for one network."""
    network = NETWORKS[name]
    options = network.write(folder / "checkpoint")
    last = BackboneEntry("last", network.kind, options=options)
    below = BackboneEntry("below", network.kind, options={**options, "layer": BELOW[name]})
    mean = BackboneEntry("mean", network.kind, options=options, pooling="mean")
    groups = {
        "deepest": [[last]],
        "one_pass": [[last, below, mean]],
        "separate": [[last], [below], [mean]],
    }
    ways = {key: Way(each, manifest, folder / key, device) for key, each in groups.items()}
    ways["deepest"].run()  # the first turn of all is slower
    ways["deepest"].cpu_seconds.clear()
    wall = interleave({key: way.run for key, way in ways.items()}, rounds, quiet=math.inf)
    cpu = {key: way.cpu_seconds for key, way in ways.items()}
    assert ways["one_pass"].shards() == ways["separate"].shards()
    shutil.rmtree(folder)
    return {
        "seconds": {key: round(statistics.median(each), 2) for key, each in wall.items()},
        "cpu_seconds": {key: round(statistics.median(each), 2) for key, each in cpu.items()},
        "ratio": {key: ratio(wall[key], wall["deepest"]) for key in ("one_pass", "separate")},
        "cpu_ratio": {key: ratio(cpu[key], cpu["deepest"]) for key in ("one_pass", "separate")},
        "loading_seconds": {key: round(way.loading_seconds, 2) for key, way in ways.items()},
    }


if __name__ == "__main__":
    typer.run(main)
