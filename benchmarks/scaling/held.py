"""Memory held for every utterance, and bytes that DVC writes for every shard.

    python -m benchmarks.scaling.held [--json] [--utterances 200000] [--files 5000]

Each thing is made in a fresh process: growth of its resident memory, in bytes an utterance.

- `manifest_in_memory`: a manifest as a tuple, which is what `prepare` makes and tests use.
- `labels`: `read_labels`, as training reads them, with five folds.
- `cache_reader`: `CacheReader` over shards of 1000 utterances: ids, contents, where rows lie.
- `store_index`: the work store's index of contents, which finds rows to copy.
- `dvc`: bytes a file in the `.dir` object of a folder of so many files, and of dvc.lock's entry for
  folders of one file and of all.
"""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.memory import alone
from features.cache.reader import CacheReader
from features.cache.shard import Row, shard_name
from features.cache.writer import write_shard
from features.corpus.manifest import Label, Manifest, read_labels
from features.corpus.utterance import Utterance
from features.extraction.store import WorkStore
from features.files.records import write_rows
from features.stream import StreamSpec

SHARD = 1000  # utterances
PAGE = 4096


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    utterances: Annotated[int, typer.Option(help="How many are made.")] = 200_000,
    files: Annotated[int, typer.Option(help="In the folder that DVC adds.")] = 5_000,
) -> None:
    """Measure and print bytes."""
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        folder = Path(made)
        write_rows(folder / "labels.jsonl", _labels(utterances))
        (folder / "cache").mkdir()
        for first in range(0, utterances, SHARD):
            _write_shard(folder / "cache" / shard_name(first // SHARD), first)
        held = {
            what.__name__.strip("_"): round(alone(grown, what, folder, utterances) / utterances)
            for what in (_manifest_in_memory, _labels_read, _cache_reader, _store_index)
        }
        result: dict[str, Any] = {"held_bytes_an_utterance": held, "dvc": _dvc(folder, files)}
    print(json.dumps(result, indent=None if as_json else 1))


def grown(what: Callable[[Path, int], Any], folder: Path, count: int) -> int:
    """Bytes of memory that stay while the result of `what` is held."""
    gc.collect()
    before = _resident()
    result = what(folder, count)
    gc.collect()
    found = _resident() - before
    del result
    return found


def _manifest_in_memory(_: Path, count: int) -> Manifest:
    return Manifest("c", tuple(_utterance(number) for number in range(count)))


def _labels_read(folder: Path, _: int) -> list[Label]:
    return read_labels(folder)


def _cache_reader(folder: Path, _: int) -> CacheReader:
    return CacheReader(folder / "cache")


def _store_index(folder: Path, _: int) -> WorkStore:
    store = WorkStore(folder, "cache")
    store.held([_hash(-1)])
    return store


def _utterance(number: int) -> Utterance:
    return Utterance(
        id=f"utterance_{number:08d}",
        audio=f"part_{number % 100:02d}/utterance_{number:08d}.wav",
        sha256=_hash(number),
        text=f"so that is number {number} of all that we said",
        seconds=2 + number * 7 % 6001 / 1000,
        bytes=64_000 + number % 192_000,
    )


def _labels(count: int) -> Iterator[Label]:
    for number in range(count):
        utterance = _utterance(number)
        yield Label(
            id=utterance.id,
            label=("angry", "happy", "neutral", "sad")[number % 4],
            speaker=f"speaker_{number % 3000}",
            seconds=utterance.seconds,
            text=utterance.text,
            audio=utterance.audio,
            splits=("train", "train", "train", "valid", "test"),
        )


def _write_shard(path: Path, first: int) -> None:
    frames = np.zeros((1, 1), np.float16)
    rows = [Row(f"utterance_{n:08d}", _hash(n), frames, 0.0) for n in range(first, first + SHARD)]
    write_shard(path, rows, spec=StreamSpec(1), provenance={"version": 1}, dtype="float16")


def _dvc(folder: Path, files: int) -> dict[str, float]:
    """Bytes of the list of a folder, a file; and of the lines that name the folder to Git."""
    project = folder / "project"
    project.mkdir()
    for words in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(words, cwd=project, check=True)
    found: dict[str, float] = {}
    for count in (1, files):
        (project / f"f{count}").mkdir()
        for number in range(count):
            (project / f"f{count}" / shard_name(number)).write_text(str(number))
        add = [sys.executable, "-m", "dvc", "add", "-q", f"f{count}"]
        subprocess.run(add, cwd=project, check=True)
        found[f"git_bytes_{count}_files"] = (project / f"f{count}.dvc").stat().st_size
    sizes = [path.stat().st_size for path in (project / ".dvc/cache").rglob("*.dir")]
    return found | {"dir_bytes_a_file": round(max(sizes) / files, 1)}


def _hash(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


if __name__ == "__main__":
    typer.run(main)
