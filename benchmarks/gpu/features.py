"""Features of a GPU: equal to the CPU's, whole after too little memory or a stop, on any GPU.

Errors are relative ones, of the worst clip: the root mean square of the difference over that of
the CPU's features in float32. A mean over all clips would hide one that was read too early.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.part import Bench, Report, SkippedError
from benchmarks.shared.clips import between, make_clips
from features.backbone.base import Inputs, module_of
from features.backbone.entry import BackboneEntry
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest
from features.extraction.extract import Options, extract, extract_with
from features.extraction.extractor import Extractor, Recipe
from features.process.devices import full_float32
from features.stream import Stream

SHARDS = 3
CUT = 3.2  # a shard closes behind the clip that fills it: a little less than a third makes three
BATCH_SECONDS = 480.0  # also on a CPU, where batches are single clips otherwise
# bfloat16 keeps 8 bits: 0.2 to 0.4 % an operation, which layers add up. On a CPU, autocast changes
# these networks by 0.2 to 1.6 % (HuBERT, WavLM, large or not).
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
OTHER_BINS = 0.01  # share of the frames whose pitch may fall into another bin in float32
ROOM = 0.5  # share of a batch's activations for which memory is left
FITTING_ROWS = 2  # of the pretended memory of a CPU


def features(bench: Bench, report: Report, name: str) -> None:
    """Three shards of a network on each device, in float32 and bfloat16, against the CPU."""
    entry = bench.entry(name, store_dtype="float32")
    manifest = ragged_clips(bench)
    reference = extracted(bench, entry, manifest, ("cpu",), "reference", batch_seconds=None)
    report.check("shards", len(list(reference.glob("*.h5"))), at_least=SHARDS)
    for device in bench.devices:
        for dtype, allowed in tolerances(bench).items():
            reduced = dataclasses.replace(entry, compute_dtype=dtype)  # type: ignore[arg-type]
            what = f"{dtype} on {device}"
            out = extracted(bench, reduced, manifest, (device,), what)
            if name == "rmvpe":
                other = _other_bins(reference, out, manifest)
                if dtype == "float32":
                    report.check(f"frames in another bin, {what}", other, at_most=OTHER_BINS)
                else:  # with random weights the peaks of a frame are about equally high
                    report.add(**{f"frames in another bin, {what}": other})
            else:
                error = worst_error(reference, out, manifest)
                report.check(f"error of the worst clip, {what}", error, at_most=allowed)
        if name == "rmvpe":
            _check_pitch(report, entry, manifest, device)


def tolerances(bench: Bench) -> dict[str, float]:
    """Allowed errors by precision; tiny networks round more, as they have few numbers to average.

    emotion2vec has 0.012 to 0.013 in bfloat16 on a CPU; that of a quick run 0.02 to 0.032.
    """
    return TOLERANCE | {"bfloat16": 5e-2} if bench.quick else TOLERANCE


def resumed(bench: Bench, report: Report) -> None:
    """Shards of an extraction that was stopped after the first, and run again: the same bytes."""
    entry = bench.entry("hubert-base", compute_dtype="bfloat16")
    manifest, devices = ragged_clips(bench), bench.devices[:1]
    whole = extracted(bench, entry, manifest, devices, "whole")
    extracted(bench, entry, manifest, devices, "stopped", part=(0, SHARDS))
    again = extracted(bench, entry, manifest, devices, "stopped")
    report.check("shards whose bytes differ", _differing(whole, again), at_most=0)


def several_devices(bench: Bench, report: Report) -> None:
    """All GPUs of the host at once: the same bytes as one of them."""
    if len(bench.devices) < 2:
        raise SkippedError(f"this machine has one {bench.device}; several GPUs are needed")
    entry = bench.entry("hubert-base", compute_dtype="bfloat16")
    manifest = ragged_clips(bench)
    one = extracted(bench, entry, manifest, bench.devices[:1], "one")
    together = extracted(bench, entry, manifest, bench.devices, "together")
    report.add(devices=len(bench.devices))
    report.check("shards whose bytes differ", _differing(one, together), at_most=0)


def too_little_memory(bench: Bench, report: Report) -> None:
    """Batches that do not fit the device: halved, no clip lost, and the same bytes if resumed."""
    entry = bench.entry("hubert-base", store_dtype="float32")
    manifest, devices = long_clips(bench), bench.devices[:1]
    with peak_bytes(bench) as peak:
        plain = extracted(bench, entry, manifest, devices, "plain")
    with short_of_memory(bench, peak[0], fixed=weight_bytes(entry)) as free:
        report.add(gib_needed=peak[0] / 2**30, gib_left=free / 2**30)
        whole, failures = _halved(bench, entry, manifest, "whole")
        _halved(bench, entry, manifest, "stopped", part=(0, SHARDS))
        again, _ = _halved(bench, entry, manifest, "stopped")
    report.check("batches that did not fit", failures, at_least=1)
    report.check("clips rejected", len(CacheReader(whole).rejected), at_most=0)
    error = worst_error(plain, whole, manifest)
    report.check("error of the worst clip, halved", error, at_most=TOLERANCE["float32"])
    report.check("shards whose bytes differ, resumed", _differing(whole, again), at_most=0)


def ragged_clips(bench: Bench) -> Manifest:
    """Clips, and texts, of differing lengths in three shards; one clip outruns bfloat16's 256."""
    durations = between(0.3, 0.6, 6) if bench.quick else [*between(1.0, 8.0, 14), 20.0]
    made = make_clips(bench.folder / "audio", durations, shard_seconds=sum(durations) / CUT)
    utterances = tuple(
        dataclasses.replace(each, text=" ".join([each.text or ""] * (1 + number % 4)))
        for number, each in enumerate(made)
    )
    characters = sum(len(each.text or "") for each in utterances)
    return dataclasses.replace(
        made, utterances=utterances, shard_characters=round(characters / CUT)
    )


def long_clips(bench: Bench) -> Manifest:
    """Clips that fill batches, in three shards."""
    durations = between(0.3, 0.6, 9) if bench.quick else between(8.0, 10.0, 96)
    return make_clips(bench.folder / "audio", durations, shard_seconds=sum(durations) / CUT)


def worst_error(wanted: Path, found: Path, manifest: Manifest) -> float:
    """Largest relative error of a clip's features; infinite if a shape differs."""
    expected, given = CacheReader(wanted), CacheReader(found)
    ids = [utterance.id for utterance in manifest]
    pairs = ([torch.from_numpy(cache[id].copy()) for cache in (expected, given)] for id in ids)
    return max(relative_error(*pair) for pair in pairs)


def relative_error(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Root mean square of the difference over that of what is wanted."""
    if wanted.shape != found.shape:
        return float("inf")
    wanted, found = wanted.double(), found.double()
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


@contextlib.contextmanager
def peak_bytes(bench: Bench) -> Iterator[list[int]]:
    """Yields a list to which the most memory that was allocated is added; 0 on a CPU."""
    found: list[int] = []
    _release(bench)
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.devices[0])
    yield found
    on_gpu = bench.device == "cuda"
    found.append(torch.cuda.max_memory_allocated(bench.devices[0]) if on_gpu else 0)
    _release(bench)


@contextlib.contextmanager
def short_of_memory(bench: Bench, needed: int, *, fixed: int) -> Iterator[int]:
    """Take all memory of the first GPU but half of what the activations of a batch need.

    So allocations fail for real, those of cuBLAS and cuDNN among them. On a CPU nothing is taken.

    Args:
        bench: The machine.
        needed: Bytes that were allocated at most with room to spare.
        fixed: Bytes of them that no batch can do without: weights and their optimiser's state.

    Yields:
        Bytes that are left.
    """
    if bench.device == "cpu":
        yield 0
        return
    room = fixed + round(ROOM * max(0, needed - fixed))
    _release(bench)
    free, _ = torch.cuda.mem_get_info(bench.devices[0])
    taken = torch.empty(max(0, free - room), dtype=torch.uint8, device=bench.devices[0])
    try:
        yield room
    finally:
        del taken
        _release(bench)


def weight_bytes(entry: BackboneEntry) -> int:
    """Bytes of a network's weights."""
    network = module_of(entry.build())
    return 0 if network is None else sum(each.nbytes for each in network.parameters())


def _release(bench: Bench) -> None:
    """Give memory that nothing uses back to the device."""
    gc.collect()
    if bench.device == "cuda":
        torch.cuda.empty_cache()


class Watched:
    """A backbone that counts the batches that do not fit.

    Args:
        backbone: The backbone.
        rows: Pretends that more rows do not fit, as a CPU's memory cannot be taken; None: no limit.
    """

    def __init__(self, backbone: Any, rows: int | None) -> None:
        self._backbone, self._rows, self.failures = backbone, rows, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def __call__(self, inputs: Inputs) -> Stream:
        """The backbone's stream."""
        try:
            if self._rows is not None and len(inputs.ids) > self._rows:
                raise torch.OutOfMemoryError("pretended")
            stream: Stream = self._backbone(inputs)
        except (RuntimeError, MemoryError):
            self.failures += 1
            raise
        return stream


def _halved(
    bench: Bench,
    entry: BackboneEntry,
    manifest: Manifest,
    name: str,
    part: tuple[int, int] | None = None,
) -> tuple[Path, int]:
    """Extract in a new extractor; the folder, and how many batches did not fit."""
    _release(bench)
    device, out = bench.devices[0], bench.folder / "halved" / name
    recipe = Recipe(entry, bench.folder / "halved-store" / name, BATCH_SECONDS, workers=0)
    extractor = Extractor(recipe, device)
    rows = FITTING_ROWS if bench.device == "cpu" else None
    watched: Any = Watched(extractor.own.runner.backbone, rows)
    extractor.own.runner.backbone = watched
    out.mkdir(parents=True, exist_ok=True)
    extract_with(extractor, manifest, out, Options(devices=(device,), part=part))
    return out, watched.failures


def extracted(
    bench: Bench,
    entry: BackboneEntry,
    manifest: Manifest,
    devices: tuple[str, ...],
    name: str,
    *,
    batch_seconds: float | None = BATCH_SECONDS,
    part: tuple[int, int] | None = None,
) -> Path:
    """The folder of an extraction; one of the same name resumes it."""
    out, store = bench.folder / "out" / name, bench.folder / "store" / name
    # Without processes that decode, which take longer to start than these few clips.
    options = Options(devices, batch_seconds, workers=0, part=part)
    extract(manifest, entry, out, store=store, options=options)
    return out


def _differing(one: Path, other: Path) -> int:
    """Number of shards that are not in both folders with the same bytes."""
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob("*.h5")}
        for folder in (one, other)
    ]
    return len({name for name, _ in digests[0].items() ^ digests[1].items()})


def _other_bins(wanted: Path, found: Path, manifest: Manifest) -> float:
    """Share of the frames that fall into another bin."""
    expected, given = CacheReader(wanted), CacheReader(found)
    pairs = [(expected[u.id], given[u.id]) for u in manifest]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def _check_pitch(report: Report, entry: BackboneEntry, manifest: Manifest, device: str) -> None:
    """Check RMVPE's salience, from which its bins are read off, in both precisions."""
    backbone = entry.build()
    network = module_of(backbone)
    assert network is not None
    mels = [backbone.prepare([utterance]).tensors["mel"] for utterance in manifest]
    with torch.inference_mode(), full_float32():
        wanted = [network(mel) for mel in mels]
        network.to(device)
        for dtype, allowed in TOLERANCE.items():
            reduced = dtype != "float32"
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=reduced):
                found = [network(mel.to(device)).cpu() for mel in mels]
            worst = max(map(relative_error, wanted, found))
            what = f"error of the worst clip's salience, {dtype} on {device}"
            report.check(what, worst, at_most=allowed)
