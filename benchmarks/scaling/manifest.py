"""Cost of extraction besides the network by corpus size: linear time, nearly constant memory.

    python -m benchmarks.scaling.manifest [--json] [--sizes 10000,100000,1000000,10000000]

Manifests of made-up utterances of 2 to 8 s, 5 s on the average, are written to a temporary folder
(about 0.3 GB a million; it goes away afterwards), and a fresh process for each does what
`python -m stages.extract` does around the network:

- `read`: every row is parsed and checked, audio paths and unique ids among them.
- `plan`: shards of an hour are cut, and every content and shard is hashed.
- `forecast`: every shard is loaded as extraction loads it, and what is new is counted.
- `deliver`: shards that hold one reject and no frames are linked into the output folder, and
  rejects are listed in the order of the manifest. Making them is not timed.

Seconds are of processor time (one thread), which other work on the machine disturbs less than the
clock's. Peaks are of resident memory in MiB, from the start to the end of a phase; `import` is
before any.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from benchmarks.memory import alone, peak_mib
from features.backbone.entry import BackboneEntry
from features.cache.writer import write_shard
from features.corpus.manifest import Manifest
from features.extraction.extract import Extraction, deliver
from features.extraction.forecast import forecast
from features.extraction.plan import ShardPlan
from features.extraction.sizes import Sizes
from features.extraction.store import WorkStore

SIZES = "10000,100000,1000000,10000000"
PHASES = ("read", "plan", "forecast", "deliver")
BYTES = 320  # of disk an utterance, to be on the safe side
Row = dict[str, Any]
T = TypeVar("T")


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sizes: Annotated[str, typer.Option(help="Numbers of utterances.")] = SIZES,
) -> None:
    """Measure and print seconds a million utterances, and peaks in MiB."""
    counts = [int(size) for size in sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        if shutil.disk_usage(made).free < max(counts) * BYTES:
            raise SystemExit(
                f"{made} has no room for {max(counts) * BYTES / 1e9:.1f} GB: set TMPDIR to a "
                "folder with more, or give smaller --sizes"
            )
        result = {str(count): _measured(Path(made) / str(count), count) for count in counts}
    print(json.dumps(result) if as_json else table(result))


def write_manifest(folder: Path, count: int) -> None:
    """Write a manifest without holding it."""
    Manifest("scaling", ()).write(folder)
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            file.write(
                f'{{"id": "utterance_{number:08d}", "audio": "part_{number % 100:02d}/'
                f'utterance_{number:08d}.wav", "sha256": "{digest}", "text": "so that is number '
                f'{number} of all that we said", "seconds": {2 + number * 7 % 6001 / 1000}, '
                f'"bytes": {64_000 + number % 192_000}}}\n'
            )


def measure(folder: Path) -> Row:
    """Go through the phases in this process: seconds and peaks by phase."""
    found: Row = {"seconds": {}, "clock_seconds": {}, "peak_mib": {"import": round(peak_mib(), 1)}}

    def timed(phase: str, function: Callable[[], T]) -> T:
        clock, start = time.perf_counter(), time.process_time()
        result = function()
        found["seconds"][phase] = round(time.process_time() - start, 2)
        found["clock_seconds"][phase] = round(time.perf_counter() - clock, 2)
        found["peak_mib"][phase] = round(peak_mib(), 1)
        return result

    entry, store, out = BackboneEntry("tone", "tone"), WorkStore(folder, "store"), folder / "out"
    backbone = entry.build()
    sizes = Sizes.of_entry(entry, backbone.spec)
    manifest = timed("read", lambda: Manifest.read(folder).located(folder))
    plan = timed("plan", lambda: ShardPlan.of(manifest, "audio", sizes))
    expected = timed("forecast", lambda: forecast(plan, store, sizes))
    if expected.compute != len(manifest):
        raise SystemExit(f"{expected.compute} of {len(manifest)} are new: no measurement")
    store.folder.mkdir()
    out.mkdir()
    for cut in plan.cuts:
        reject = {manifest[cut.rows[0]].id: "it is silent"}
        provenance = {"version": 1}
        path = store.path(cut.fingerprint)
        write_shard(
            path, [], spec=backbone.spec, provenance=provenance, dtype="float16", rejected=reject
        )
    tell = Extraction()
    timed("deliver", lambda: deliver(store, plan, out, tell))
    return found | {"shards": len(plan), "rejected": len(tell.rejected)}


def _measured(folder: Path, count: int) -> Row:
    write_manifest(folder, count)
    size = (folder / "manifest.jsonl").stat().st_size
    row = alone(measure, folder)
    shutil.rmtree(folder)
    million = {phase: round(s / count * 1e6, 1) for phase, s in row["seconds"].items()}
    return {"manifest_mb": round(size / 1e6, 1), "seconds_a_million": million, **row}


def table(result: dict[str, Row]) -> str:
    """For people."""
    titles = [f"{phase} s/M" for phase in PHASES] + [f"{phase} MiB" for phase in PHASES]
    lines = ["".join(f"{title:>13}" for title in ("utterances", "shards", "import MiB", *titles))]
    for count, row in result.items():
        values = [row["seconds_a_million"][phase] for phase in PHASES]
        values += [row["peak_mib"][phase] for phase in PHASES]
        cells = (count, row["shards"], row["peak_mib"]["import"], *values)
        lines.append("".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
