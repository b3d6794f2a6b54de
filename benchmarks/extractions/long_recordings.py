"""Memory and time of extraction by the length of one recording, in windows or whole.

    python -m benchmarks.extractions.long_recordings [--json] [--minutes 5 --minutes 15] [--whole]
        [--only hubert-base]

A recording of each length is extracted under each backbone with `long: window` (30 s each 20 s; CED
10 s each 8 s), in a process of its own whose largest resident memory is read; expected: the same
for all lengths. Networks have real sizes and random weights. `--whole` measures the same without
windows, where memory allows.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer

from benchmarks.memory import alone, peak_mib
from benchmarks.shared.clips import RATE
from benchmarks.shared.networks import NETWORKS, Network
from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.extraction.extract import Options, extract
from features.files.reading import file_sha256

WINDOWS: dict[str, Any] = {"long": "window"}
CED_WINDOWS = WINDOWS | {"window_seconds": 10.0, "window_hop_seconds": 8.0}
NAMES = ("hubert-base", "whisper-tiny", "ced-small", "f0-harvest", "logmel")
MEASURED = {"logmel": Network("logmel", lambda _: {}), **NETWORKS}


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    minutes: Annotated[list[int], typer.Option(help="Of a recording.", min=1)] = [5, 15, 60],  # noqa: B006
    whole: Annotated[bool, typer.Option("--whole", help="Without windows.")] = False,
    only: Annotated[list[str], typer.Option(help="Backbones.")] = list(NAMES),  # noqa: B006
) -> None:
    """Measure and print peaks in MiB and seconds."""
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        folder = Path(made)
        manifests = {length: make_recording(folder / f"{length}.wav", length) for length in minutes}
        result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in only}
        if not as_json:
            print(f"{'':14}{'minutes':>8}{'peak':>12}{'an hour takes':>16}{'of CPU':>12}")
        for name in only:
            entry = entry_of(name, folder / name, whole=whole)
            for length, manifest in manifests.items():
                row = alone(measured, entry, manifest, folder / f"{name}-{length}")
                result[name][str(length)] = row
                if not as_json:  # each as it comes: the whole takes an hour
                    peak, took = f"{row['peak_mib']:.0f} MiB", f"{row['seconds_per_hour']:.0f} s"
                    cpu = f"{row['cpu_seconds_per_hour']:.0f} s"
                    print(f"{name:14}{length:>8}{peak:>12}{took:>16}{cpu:>12}", flush=True)
    if as_json:
        print(json.dumps(result))


def make_recording(path: Path, minutes: int) -> Manifest:
    """A recording of voice-like minutes, all different, and its manifest."""
    time_axis = np.arange(60 * RATE, dtype=np.float32) / RATE
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        for number in range(minutes):
            generator = np.random.default_rng(number)
            hz = generator.uniform(80, 280)
            noise = 0.02 * generator.standard_normal(len(time_axis), dtype=np.float32)
            file.write(0.2 * np.sin(2 * np.pi * hz * time_axis) + noise)
    row = Utterance("long", str(path), file_sha256(path), seconds=60.0 * minutes)
    return Manifest("long", (row,))


def entry_of(name: str, folder: Path, *, whole: bool) -> BackboneEntry:
    """Entry of a backbone; a network is written to `folder`."""
    windows = {} if whole else CED_WINDOWS if name.startswith("ced") else WINDOWS
    network = MEASURED[name]
    return BackboneEntry(name, network.kind, options=network.write(folder), **windows)


def measured(entry: BackboneEntry, manifest: Manifest, folder: Path) -> dict[str, float]:
    """Peak of this process in MiB, once it has extracted a recording, and the seconds it took.

    Everything is done in this process. Other work on the machine changes its seconds of CPU least.
    """
    begun, cpu = time.perf_counter(), time.process_time()
    options = Options(workers=0)
    done = extract(manifest, entry, folder / "out", store=folder / "store", options=options)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if done.computed != 1:
        raise SystemExit(f"{entry.name}: nothing was computed ({done.rejected}): no measurement")
    hours = (manifest[0].seconds or 0.0) / 3600
    return {
        "peak_mib": round(peak_mib(), 1),
        "seconds_per_hour": round(seconds / hours, 1),
        "cpu_seconds_per_hour": round(cpu / hours, 1),
    }


if __name__ == "__main__":
    typer.run(main)
