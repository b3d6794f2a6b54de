"""Speed of fine-tuning backbones: ours against a plain loop with transformers' `Trainer`.

    python -m benchmarks.end_to_end [--json] [--width small] [--clips 48] [--rounds 3]
        [--device cpu] [--dtype float32]

Both train the same network (a HuBERT with random weights and a head on the mean of its frames,
convolutions frozen, nothing random in it) on the same WAV files of 1 to 10 s. Their losses of one
clip are compared before anything is timed; of a padded batch they would differ, since the loop lets
padding into HuBERT's group norm. Timed is an epoch from the preparation of its first batch to the
end of its last step: without loading weights, validation and checkpoints.

- `same_batches`: the loop is given our batches, in our order.
- `epoch`: it shuffles clips into batches of `--batch` by itself, as it does by default; ours sort
  by length and close a batch at as many padded seconds as the loop's batches have in the mean.
- `fraction_of_peak`: floating-point operations that the clips need, each alone, forward and
  backward, over those of a large matrix product in the same time (`benchmarks/extraction.py`).
- `peak_mib`: resident memory of processes that train an epoch and do nothing else, in turns; on a
  GPU what they allocate there. `memory` is ours over the loop's, both on the same batches and each
  on its own. On a CPU glibc is set to return freed memory (blocks of 1 MiB and more): by
  default it keeps an amount that varies by a tenth from run to run, for either contender.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import alone, peak_mib
from benchmarks.shared.clips import between, make_clips
from benchmarks.shared.flops import Matmul
from benchmarks.shared.networks import write_speech
from benchmarks.shared.our_tuning import TuneTask, first_loss, settings, train_ours
from benchmarks.shared.peer_tuning import peer_loss, train_peer
from benchmarks.shared.rounds import interleave, ratio
from features.backbone.entry import BackboneEntry

GOALS = "goals: same batches >= 1.0, epoch >= 1.3, memory <= 1.0"
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # read when a process begins
Steps = list[tuple[str, ...]]


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    width: Annotated[str, typer.Option(help="`small`, or `base` (real sizes).")] = "small",
    clips: Annotated[int, typer.Option(min=16)] = 48,
    batch: Annotated[int, typer.Option(help="Clips a step.", min=2)] = 8,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    device: str = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Measure and print ratios."""
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        folder = Path(made)
        options = write_speech(folder / "hubert", "Hubert", normalize=True, **settings(width))
        entry = BackboneEntry("hubert", "speech_encoder", options=options)
        manifest = make_clips(folder / "clips", between(1.0, 10.0, clips), shard_seconds=3600)
        threads = 1 if device == "cpu" else 4
        task = TuneTask(entry, manifest, device, dtype, batch, threads=threads)
        result = {"width": width, "clips": clips, "batch": batch, "device": device, "dtype": dtype}
        result |= {"rounds": rounds, "threads": torch.get_num_threads()}
        result |= measure(task, rounds)
    print(json.dumps(result) if as_json else table(result))


def measure(task: TuneTask, rounds: int) -> dict[str, Any]:
    """All figures of a network."""
    steps = train_ours(task).steps
    mine, theirs = first_loss(task, steps[0][:1]), peer_loss(task, steps[0][:1])
    allowed = 1e-5 if task.precision == "float32" else 5e-2
    if abs(mine - theirs) > allowed * abs(theirs):
        raise SystemExit(f"first losses {mine} and {theirs} differ: not the same network")
    trained = {id for ids in steps for id in ids}
    seconds = sum(clip.seconds or 0.0 for clip in task.manifest if clip.id in trained)
    own = TuneTask(**vars(task) | {"batch_seconds": padded_seconds(task)})
    matmul = Matmul(torch.device(task.device), getattr(torch, task.precision))
    turns = {
        "ours": lambda: _seconds(train_ours(task)),
        "peer": lambda: _seconds(train_peer(task, steps)),
        "ours_own_batches": lambda: _seconds(train_ours(own)),
        "peer_own_batches": lambda: _seconds(train_peer(task)),
        "matmul": matmul.seconds_per_flop,
    }
    times = interleave(turns, rounds)
    flops = flops_of(task)
    fractions = [
        flops * each / total
        for each, total in zip(times["matmul"], times["ours_own_batches"], strict=True)
    ]
    speed = seconds / statistics.median(times["ours_own_batches"])
    return {
        "loss_difference": round(abs(mine - theirs), 8),
        "same_batches": ratio(times["peer"], times["ours"]),
        "epoch": ratio(times["peer_own_batches"], times["ours_own_batches"]),
        "steps_per_second": round(len(steps) / statistics.median(times["ours"]), 3),
        "audio_seconds_per_second": round(speed, 1),
        "fraction_of_peak": {
            "median": round(statistics.median(fractions), 2),
            "range": [round(min(fractions), 2), round(max(fractions), 2)],
        },
        "peak_gflops": round(1e-9 / statistics.median(times["matmul"]), 1),
        **memory(task, own, steps, rounds),
    }


def memory(task: TuneTask, own: TuneTask, steps: Steps, rounds: int) -> dict[str, Any]:
    """Peaks of each contender in a process of its own, and ours over the loop's."""
    turns = {
        "ours": partial(alone, peak_of, train_ours, task),
        "peer": partial(alone, peak_of, train_peer, task, steps),
        "ours_own_batches": partial(alone, peak_of, train_ours, own),
        "peer_own_batches": partial(alone, peak_of, train_peer, task),
    }
    with mock.patch.dict(os.environ, GIVING_BACK):
        peaks = interleave(turns, rounds, quiet=math.inf)
    ours, peers = ((peaks[who], peaks[f"{who}_own_batches"]) for who in ("ours", "peer"))
    return {
        "memory": {"same_batches": ratio(ours[0], peers[0]), "epoch": ratio(ours[1], peers[1])},
        "peak_mib": {who: round(statistics.median(found), 1) for who, found in peaks.items()},
    }


def padded_seconds(task: TuneTask) -> float:
    """Of the mean batch of clips in the order of the corpus, which is a random one."""
    clips = [clip.seconds or 0.0 for clip in task.manifest]
    parts = [clips[n : n + task.batch_size] for n in range(0, len(clips), task.batch_size)]
    return statistics.fmean(max(part) * len(part) for part in parts)


def flops_of(task: TuneTask) -> int:
    """Operations of an epoch, each training clip alone, forward and backward."""
    examples = task.examples()
    model = task.model(examples).train()
    total = 0
    for label in examples.split(0, "train"):
        part = examples.batch([label]).to(torch.device(task.device))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.loss(model(part), part).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        total += counter.get_total_flops()
    return total


def peak_of(train: Callable[..., Any], task: TuneTask, *more: Steps) -> float:
    """MiB that this process, or its GPU, has needed at most, after an epoch."""
    train(task, *more)
    if task.device == "cpu":
        return peak_mib()
    return torch.cuda.max_memory_allocated() / 2**20


def _seconds(watch: Any) -> float:
    return float(watch.ended - watch.started)


def table(result: dict[str, Any]) -> str:
    """For people."""
    shown = {key: value for key, value in result.items() if key != "peak_mib"}
    lines = [f"{key:26}{value}" for key, value in shown.items()]
    lines += [f"peak MiB, {name:18}{value}" for name, value in result["peak_mib"].items()]
    return "\n".join([*lines, GOALS])


if __name__ == "__main__":
    typer.run(main)
