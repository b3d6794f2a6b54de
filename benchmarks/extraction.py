"""Speed of feature extraction: ours, a plain loop, and the limit of the machine.

    python -m benchmarks.extraction [--json] [--backbones hubert-base,whisper-tiny] [--device cpu]
        [--dtype float32] [--clips 8] [--seconds 5] [--rounds 3]

Both read the same WAV files and the same weights, random but of real architecture and size
(benchmarks/shared/networks.py); what they make is compared first. Loading weights is not timed.

- `ratio_to_peer`: seconds of the loop of benchmarks/shared/peer_extraction.py over ours: above 1,
  ours is faster. Ours hashes files and flushes the disk; the loop computes in float32, ours in
  `--dtype`.
- `fraction_of_peak`: floating-point operations that the clips need, each alone (Whisper: of its
  windows of 30 s), over those of a large matrix product in the same dtype in the same time. It is
  timed in each round, since machines are noisy.
- `peak_mib`: resident memory of a process that does nothing else; on a GPU also what it allocates
  there.
- `bytes_ratio`: size of the loop's files over that of the cache.

With eight clips, those who compute several at once (RoBERTa, CED, RMVPE: `cpu_batch_seconds`) have
a batch or two, and one thread waits for another: `--clips 64`.

On a GPU, `--backbones hubert-base --clips 4096 --dtype bfloat16`: with few clips, starting the
processes that decode takes longer than all the rest.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.memory import alone, peak_mib
from benchmarks.shared.clips import between, make_clips
from benchmarks.shared.flops import Matmul, flops_of_all
from benchmarks.shared.networks import NETWORKS
from benchmarks.shared.our_extraction import Ours, Task
from benchmarks.shared.peer_extraction import Peer, compare
from benchmarks.shared.rounds import interleave, ratio
from features.backbone.entry import BackboneEntry

DEFAULT = {"cpu": "hubert-base,whisper-tiny", "cuda": "hubert-base,whisper-tiny,whisper-large-v3"}
CLIPS = {"cpu": 8, "cuda": 512}
GOALS = {
    "cpu": "goals: ratio >= 1, fraction >= 0.5",
    "cuda": "goals in bfloat16: fraction >= 0.4 (whisper-large-v3), ratio >= 10 (hubert-base)",
}
Row = dict[str, Any]


def main(
    *,
    backbones: Annotated[str, typer.Option(help="Some of benchmarks/shared/networks.py.")] = "",
    clips: Annotated[int, typer.Option(help="0: 8 on a CPU, 512 elsewhere.", min=0)] = 0,
    seconds: Annotated[str, typer.Option(help="Of a clip; `2-8` for ragged ones.")] = "5",
    rounds: Annotated[int, typer.Option(help="How often each runs.", min=3)] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Ours: float32 or bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure and print a row for each backbone."""
    place = torch.device(device).type
    names = (backbones or DEFAULT[place]).split(",")
    if dtype not in ("float32", "bfloat16") or not set(names) <= set(NETWORKS):
        raise typer.BadParameter(
            f"dtype {dtype!r}, backbones {names}; expected float32 or bfloat16, and some of "
            f"{list(NETWORKS)}"
        )
    shortest, _, longest = seconds.partition("-")
    durations = between(float(shortest), float(longest or shortest), clips or CLIPS[place])
    result: Row = {
        "device": torch.cuda.get_device_name(device) if place == "cuda" else place,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "clips": len(durations),
        "seconds": seconds,
        "rounds": rounds,
        "backbones": {},
    }
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        manifest = make_clips(Path(made) / "audio", durations)
        for name in names:
            task = Task(BackboneEntry(name, "none"), manifest, device, Path(made) / name)
            result["backbones"][name] = row(task, rounds, dtype)
    print(json.dumps(result) if as_json else table(result, GOALS[place]))


def row(task: Task, rounds: int, dtype: Any) -> Row:
    """What is measured of one backbone, whose checkpoint is written and removed."""
    network = NETWORKS[task.entry.name]
    if network.dependency is not None and find_spec(network.dependency) is None:
        return {"skipped": f"{network.dependency} is not installed"}
    options = network.write(task.folder / "checkpoint")
    entry = BackboneEntry(task.entry.name, network.kind, compute_dtype=dtype, options=options)
    found = measure(dataclasses.replace(task, entry=entry), rounds)
    shutil.rmtree(task.folder, ignore_errors=True)
    return found


def measure(task: Task, rounds: int) -> Row:
    """The row of one backbone."""
    device = torch.device(task.device)
    ours, theirs = Ours(task), Peer(task)
    matmul = Matmul(device, getattr(torch, task.entry.compute_dtype))
    ours.run()
    theirs.run()
    difference = compare(ours.out, theirs.out, task)
    bytes_ours, bytes_theirs = _bytes(ours.out), _bytes(theirs.out)
    flops = flops_of_all(ours.extractor.backbone, task.manifest, device)
    seconds = interleave(
        {"ours": ours.run, "peer": theirs.run, "flop": matmul.seconds_per_flop}, rounds
    )
    took = statistics.median(seconds["ours"])
    audio = sum(utterance.seconds or 0.0 for utterance in task.manifest)
    hears = ours.extractor.backbone.reads == "audio"
    del ours, theirs  # their memory, before others are measured
    least = [flops * each for each in seconds["flop"]]  # if it ran as fast as the matrix product
    return {
        "ratio_to_peer": ratio(seconds["peer"], seconds["ours"]),
        "fraction_of_peak": ratio(least, seconds["ours"]) if flops else None,
        "clips_per_second": _short(len(task.manifest) / took),
        "audio_seconds_per_second": _short(audio / took) if hears else None,
        "gflop_per_clip": _short(flops / len(task.manifest) / 1e9),
        "peak_gflops": _short(1e-9 / statistics.median(seconds["flop"])),
        "difference": float(f"{difference:.1e}"),
        "bytes_ratio": round(bytes_theirs / bytes_ours, 2),
        "cache_bytes": bytes_ours,
        "peak_mib": {"ours": alone(_peak, Ours, task), "peer": alone(_peak, Peer, task)},
    }


def _peak(contender: type[Ours] | type[Peer], task: Task) -> Row:
    """MiB that a process takes for one run; called in one of its own."""
    own = dataclasses.replace(task, folder=task.folder / "alone")
    contender(own).run()
    shutil.rmtree(own.folder, ignore_errors=True)
    if torch.device(task.device).type != "cuda":
        return {"resident": round(peak_mib(), 1)}
    on_device = torch.cuda.max_memory_allocated(task.device) / 2**20
    return {"resident": round(peak_mib(), 1), "device": round(on_device, 1)}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def table(result: Row, goals: str) -> str:
    """The same for people."""
    lines = [
        f"{result['clips']} clips of {result['seconds']} s, {result['device']}, "
        f"{result['threads']} threads, {result['dtype']}; {goals}",
        f"{'':18}{'x peer':>18}{'of peak':>20}{'clips/s':>9}{'audio-s/s':>10}"
        f"{'bytes x':>8}  MiB ours, peer",
    ]
    for name, row in result["backbones"].items():
        if "skipped" in row:
            lines.append(f"{name:18}{row['skipped']}")
            continue
        lines.append(
            f"{name:18}{_spread(row['ratio_to_peer']):>18}{_spread(row['fraction_of_peak']):>20}"
            f"{row['clips_per_second']:>9}{row['audio_seconds_per_second'] or '-':>10}"
            f"{row['bytes_ratio']:>8}  {_mib(row['peak_mib'])}"
        )
    return "\n".join(lines)


def _spread(value: Row | None) -> str:
    return "-" if value is None else f"{value['median']} {value['range']}"


def _mib(peaks: Row) -> str:
    return ", ".join(" + ".join(f"{mib:.0f}" for mib in peak.values()) for peak in peaks.values())


if __name__ == "__main__":
    typer.run(main)
