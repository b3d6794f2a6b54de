"""Peak memory of extraction by corpus size; expected: constant.

    python -m benchmarks.memory [--json] [--clips 100] [--more 2000]

A corpus of 100 and one of 2,000 clips of 1 s, in shards of 20 s each, are extracted in processes of
their own whose peak resident memory is compared. `tone` is 1024 wide and `network` a small HuBERT
512 wide, so that all rows held at once would take 100 MB in float16.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from benchmarks.shared.clips import make_clips
from benchmarks.shared.networks import write_speech
from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.extraction.extract import extract
from features.process.workers import WorkerPool

GOAL = 1.1
SECONDS = 1.0
SHARD_SECONDS = 20.0
TONE = BackboneEntry("tone", "tone", options={"dim": 1024})
P = ParamSpec("P")
R = TypeVar("R")


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    clips: Annotated[int, typer.Option(help="Of the small corpus.", min=1)] = 100,
    more: Annotated[int, typer.Option(help="Of the large corpus.", min=1)] = 2000,
) -> None:
    """Measure and print peaks in MiB."""
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        folder = Path(made)
        manifests = {
            count: make_clips(folder / str(count), [SECONDS] * count, shard_seconds=SHARD_SECONDS)
            for count in (clips, more)
        }
        result = {
            entry.name: _compare(entry, manifests, folder)
            for entry in (TONE, small_network(folder / "checkpoint"))
        }
    print(json.dumps(result) if as_json else _table(result, clips, more))


def small_network(folder: Path) -> BackboneEntry:
    """Two layers over narrow convolutions, written to `folder`."""
    options = write_speech(
        folder,
        "Hubert",
        normalize=True,
        conv_dim=(32,) * 7,
        hidden_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        num_conv_pos_embeddings=16,
    )
    return BackboneEntry("network", "speech_encoder", options=options)


def alone(function: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
    """The result of a function in a fresh process, whose memory holds nothing of this one's."""
    with WorkerPool(1) as pool:
        return pool.submit(function, *args, **keywords).result()


def peak_mib() -> float:
    """Largest resident memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` of Linux is inherited from the process that started this one
        lines = status.read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def peak_of(entry: BackboneEntry, manifest: Manifest, folder: Path) -> float:
    """Peak of this process in MiB, once it has extracted a corpus."""
    tell = extract(manifest, entry, folder / "out", store=folder / "store")
    if tell.computed != len(manifest):
        raise SystemExit(f"{tell.computed} of {len(manifest)} clips were computed: no measurement")
    return peak_mib()


def _compare(entry: BackboneEntry, manifests: dict[int, Manifest], folder: Path) -> dict[str, Any]:
    peaks = {
        count: alone(peak_of, entry, manifest, folder / f"{entry.name}-{count}")
        for count, manifest in manifests.items()
    }
    small, large = (peaks[count] for count in manifests)
    return {
        "peak_mib": {str(count): round(peak, 1) for count, peak in peaks.items()},
        "growth_mib": round(large - small, 1),
        "ratio": round(large / small, 3),
        "goal": GOAL,
    }


def _table(result: dict[str, Any], clips: int, more: int) -> str:
    lines = [f"{'':10}{clips:>10} clips{more:>10} clips     ratio (goal: at most {GOAL})"]
    for name, row in result.items():
        small, large = row["peak_mib"].values()
        lines.append(f"{name:10}{small:>12} MiB{large:>12} MiB{row['ratio']:>10}")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
