"""Speed on a GPU, against the measured peak of its matrix products and against plain programs.

Contenders take turns, and ratios are of the same round. The peak is that of square bfloat16
products (benchmarks/shared/flops.py). All clips have 5 s.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.features import relative_error, tolerances
from benchmarks.gpu.part import Bench, Report
from benchmarks.shared.clips import between, make_clips
from benchmarks.shared.contenders import Heronry, Setup
from benchmarks.shared.device_ways import reading_ways
from benchmarks.shared.flops import Matmul, flops_of_all
from benchmarks.shared.our_extraction import Ours, Task
from benchmarks.shared.our_tuning import TuneTask, first_loss, train_ours
from benchmarks.shared.peer_extraction import Peer
from benchmarks.shared.peer_tuning import peer_loss, train_peer
from benchmarks.shared.rounds import ratio
from benchmarks.shared.training_inputs import CLASSES, epoch_seconds, make_labels, started
from features.cache.reader import CacheReader
from features.corpus.manifest import Label, Manifest
from features.extraction.batches import default_workers
from pipeline.cached.resident import FREE_PART, release
from pipeline.cached.run import run_job
from pipeline.data.examples import join
from pipeline.params.training import TrainParams
from pipeline.runs.job import Job
from pipeline.runtime.pool import run_jobs

CLIP_SECONDS = 5.0
GOALS = {  # by network: fraction of the peak, factor over the loop
    "hubert-base": (None, 20.0),
    "hubert-large": (0.4, None),
    "whisper-large-v3": (0.5, None),
}
# IEMOCAP with four classes: its utterances; frames of text, and of speech of 1 to 10 s.
IEMOCAP = 5531
SLOTS = {"text": (5, 40, 768), "speech": (50, 500, 1024), "nonverbal": (50, 500, 768)}
HERON = TrainParams(epochs=20, accumulate=2, patience=20)  # all 20, as params.yaml has them
HERON_SECONDS = 60.0
SEEDS, SEEDS_FACTOR = 10, 2.0
SEEDS_EPOCHS = 4  # ten processes divide the GPU's time: 20 epochs of each would take minutes


class Paced(Ours):
    """Also knows when the features of each clip have arrived from the device."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.times: list[float] = []
        self._keep = self.extractor.own.keep
        self.extractor.own.keep = self._timed  # type: ignore[method-assign,assignment]

    def run(self) -> float:
        """Seconds of the whole extraction."""
        self.times.clear()
        self.begun = time.perf_counter()
        seconds = super().run()
        self.ended = time.perf_counter()
        return seconds

    def pace(self) -> float:
        """Seconds a clip from the middle on, when the processes that decode have long started.

        Until the last one's features are there: so short a corpus has few shards, and the time in
        which its last one is written (`tail`) would count as that of all clips.
        """
        middle = self.times[len(self.times) // 2 - 1]
        later = sum(each > middle for each in self.times)  # those of further batches
        if not later:  # all in one batch
            return (self.ended - self.begun) / len(self.times)
        return (self.times[-1] - middle) / later

    def tail(self) -> float:
        """Seconds from the last clip's features to the end."""
        return self.ended - self.times[-1]

    def _timed(self, shard: Any, item: Any, *given: Any) -> None:
        self._keep(shard, item, *given)
        self.times += [time.perf_counter()] * len(item.utterances)


def extraction(bench: Bench, report: Report, name: str, clips: int, loop_clips: int) -> None:
    """Extraction in bfloat16 against the peak, and against a loop over files in float32."""
    if bench.quick:
        clips, loop_clips = 6, 3
    entry = bench.entry(name, compute_dtype="bfloat16")
    durations = [0.4 if bench.quick else CLIP_SECONDS] * clips
    task = Task(
        entry, make_clips(bench.folder / "audio", durations), bench.devices[0], bench.folder
    )
    fewer = Manifest("loop", tuple(task.manifest)[:loop_clips])
    ours = Paced(task)
    theirs = Peer(dataclasses.replace(task, manifest=fewer, folder=bench.folder / "loop"))
    ours.run()
    theirs.run()
    if name != "rmvpe":  # bins have no error: see the part `features-rmvpe`
        error = _worst_error(ours.out, theirs.out, fewer)
        report.check("error of the worst clip", error, at_most=tolerances(bench)["bfloat16"])
    device = torch.device(bench.devices[0])
    flops = flops_of_all(ours.extractor.backbone, fewer, device) / loop_clips
    matmul = Matmul(device, torch.bfloat16, (256,) if bench.quick else None)
    paces, tails = list[float](), list[float]()

    def turn() -> float:
        seconds = ours.run()
        paces.append(ours.pace())
        tails.append(ours.tail())
        return seconds / clips

    turns = {
        "ours": turn,
        "loop": lambda: theirs.run() / loop_clips,
        "flop": matmul.seconds_per_flop,
    }
    found = bench.rounds(turns)
    least = [flops * each for each in found["flop"]]  # seconds a clip at the peak
    fraction, factor = ratio(least, paces), ratio(found["loop"], paces)
    report.add(
        clips=clips,
        rounds=len(paces),
        gflop_per_clip=flops / 1e9,
        peak_tflops=1e-12 / statistics.median(found["flop"]),
        fraction_of_peak=fraction,
        factor_over_loop=factor,
        clips_per_second=1 / statistics.median(paces),
        factor_over_loop_with_start=ratio(found["loop"], found["ours"]),
        start_seconds=clips * (statistics.median(found["ours"]) - statistics.median(paces)),
        tail_seconds=statistics.median(tails),
        decoders=default_workers(ours.extractor.backbone, device, sum(durations)),
        loop_ms_per_clip=1e3 * statistics.median(found["loop"]),
    )
    goal, loop_goal = GOALS.get(name, (None, None))
    if goal is not None and not bench.quick:
        report.goal("fraction of the bfloat16 peak", fraction["median"], at_least=goal)
    if loop_goal is not None and not bench.quick:
        report.goal("factor over the loop", factor["median"], at_least=loop_goal)


def heron(bench: Bench, report: Report) -> None:
    """20 epochs of HERON on caches of IEMOCAP's size; ten seeds in ten processes, fewer epochs."""
    job = _jobs(bench, 1)[0]
    one = _seconds_alone(job)
    report.add(epochs=job.params.epochs, utterances=len(job.labels), one_seed_seconds=one)
    if not bench.quick:
        report.goal("seconds for 20 epochs", one, at_most=HERON_SECONDS)
    count, epochs = (1, 1) if bench.quick else (SEEDS, SEEDS_EPOCHS)
    alone = _seconds_alone(_jobs(bench, 1, epochs)[0])
    begun = time.perf_counter()
    for _ in run_jobs(run_job, _jobs(bench, count, epochs), workers=count):
        pass
    together = time.perf_counter() - begun
    factor = together / alone
    report.add(seeds=count, epochs_of_seeds=epochs, all_seeds_seconds=together, factor=factor)
    if not bench.quick:
        report.goal("ten seeds over one", factor, at_most=SEEDS_FACTOR)


def _seconds_alone(job: Job) -> float:
    """Seconds of a training that has the device to itself, with the upload of its caches."""
    begun = time.perf_counter()
    run_job(job)
    release()
    return time.perf_counter() - begun


def reading(bench: Bench, report: Report) -> None:
    """Epochs of HERON on frames that lie on the GPU, are streamed to it, or are waited for."""
    slots, labels = _caches(bench)
    examples, device = join(slots, labels, CLASSES, verify=False), bench.devices[0]
    running = started("heron", _heron_args(bench), HERON, examples, device)
    report.add(**reading_ways(partial(epoch_seconds, running, HERON), examples, device, rounds=1))


def tuning(bench: Bench, report: Report) -> None:
    """Steps of fine-tuning HuBERT-base in bfloat16 against transformers' Trainer."""
    durations = between(0.3, 0.6, 10) if bench.quick else between(1.0, 10.0, 82)
    clips = make_clips(bench.folder / "audio", durations)
    entry, size = bench.entry("hubert-still"), 4 if bench.quick else 8
    task = TuneTask(entry, clips, bench.devices[0], "bfloat16", size, threads=4)
    order = train_ours(task).steps
    mine, theirs = first_loss(task, order[0][:1]), peer_loss(task, order[0][:1])
    report.check("first losses, relative", abs(mine - theirs) / theirs, at_most=5e-2)
    train_peer(task, order)
    memory: dict[str, float] = {}

    def ours() -> float:
        with _peak_gib(bench, memory, "ours"):
            watch = train_ours(task)
        return (watch.ended - watch.started) / len(watch.steps)

    def peer() -> float:
        with _peak_gib(bench, memory, "trainer"):
            timer = train_peer(task, order)
        return (timer.ended - timer.started) / timer.steps

    found = bench.rounds({"ours": ours, "trainer": peer})
    speed = ratio(found["trainer"], found["ours"])
    report.add(
        steps=len(order),
        clips_a_step=size,
        factor_over_trainer=speed,
        ms_a_step={name: 1e3 * statistics.median(each) for name, each in found.items()},
        gib_on_device=memory,
    )
    if not bench.quick:
        report.goal("a step, factor over Trainer", speed["median"], at_least=1.0)


def _worst_error(ours: Path, loop: Path, manifest: Manifest) -> float:
    reader, worst = CacheReader(ours), 0.0
    for utterance in manifest:
        wanted = torch.load(loop / f"{utterance.id}.pt", weights_only=True)
        worst = max(worst, relative_error(wanted, torch.from_numpy(reader[utterance.id].copy())))
    return worst


def _caches(bench: Bench) -> tuple[dict[str, Path], list[Label]]:
    """Caches of random frames and their labels; written by the first part that asks."""
    count, folder = 40 if bench.quick else IEMOCAP, bench.shared / "iemocap"
    made = folder / "made"
    if not made.exists():
        for slot, (shortest, longest, width) in SLOTS.items():
            (folder / slot).mkdir(parents=True, exist_ok=True)
            sizes = (1, 4, 16) if bench.quick else (shortest, longest, width)
            Heronry.write(folder / slot, Setup(count, *sizes).rows())
        made.touch()
    labels = make_labels(count)
    ids = [f"utterance-{number:06d}" for number in range(count)]
    named = [dataclasses.replace(label, id=id) for label, id in zip(labels, ids, strict=True)]
    return {slot: folder / slot for slot in SLOTS}, named


def _jobs(bench: Bench, count: int, epochs: int = HERON.epochs) -> Sequence[Job]:
    """One job a seed, each with its part of the device's memory."""
    slots, labels = _caches(bench)
    params = dataclasses.replace(HERON, epochs=1 if bench.quick else epochs)
    return [
        Job(
            title="heron",
            kind="heron",
            args=_heron_args(bench),
            slots=slots,
            labels=labels,
            classes=CLASSES,
            params=params,
            seed=seed,
            fold=0,
            out=bench.folder / f"{count}-seeds-{epochs}" / str(seed),
            device=bench.devices[0],
            resident=FREE_PART / count,
        )
        for seed in range(count)
    ]


def _heron_args(bench: Bench) -> Mapping[str, Any]:
    return {"d_model": 16} if bench.quick else {}


@contextmanager
def _peak_gib(bench: Bench, found: dict[str, float], name: str) -> Iterator[None]:
    """Add the most memory that the device had allocated; on a CPU nothing."""
    if bench.device == "cpu":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.devices[0])
    yield
    found[name] = torch.cuda.max_memory_allocated(bench.devices[0]) / 2**30
