"""Every step of a corpus by its size: peak memory and processor seconds, from prepare to doctor.

    python -m benchmarks.scaling.steps [--json] [--sizes 10000,100000] [--folder DISK] [--steps ...]

A corpus of made-up utterances is taken through a project of its own, each step by the command that
a user (or DVC) runs. An utterance is a span of 2 to 8 s of its speaker's recording, 500 a speaker;
the two slots of the model, `linear`, hold one vector of 8 values an utterance (`tone`, pooled) that
says a little about the class. Shards of these vectors are put into the work store beforehand, which
is not timed: extraction links them. Training takes one epoch of each of 5 folds, in two processes,
of one seed: others would take the same again. The report reads 5 seeds, of which four are copies of
the first, and so ten predictions an utterance. With `--folder` the projects stay there, and a later
call with other `--steps` goes on with them.

- `prepare`, `plan`, `extract` (both slots, one after the other), `again` (`plan` beside the
  caches), `train`, `report`, `doctor`.
- `peak_mib`: largest sum over the processes of a step of their memory, a page that several hold
  counted once (PSS), read twice a second.
- `cpu_seconds`: of all its processes, in user and system mode; `clock_seconds` beside it.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.memory import alone
from features.backbone.entry import backbone_entry
from features.corpus.manifest import Manifest
from features.extraction.extractor import Extractor, Recipe
from features.extraction.plan import ShardPlan
from features.transcription.settings import Transcription
from pipeline.runs.layout import digests

SIZES = "10000,100000"
A_SPEAKER = 500  # utterances
RATE_HZ, RECORDING_SECONDS = 8000, 15.0
CLASSES = ("angry", "happy", "neutral", "sad")
FOLDS = SEEDS = 5
WIDTH = 8
SLOTS = {"speech": "voice", "spectral": "room"}
BYTES = 6_000  # of disk an utterance, to be on the safe side
STEPS = {
    "prepare": [["stages.prepare", "many"]],
    "plan": [["pipeline", "plan"]],
    "extract": [["stages.extract", "many", name, "--only"] for name in SLOTS.values()],
    "again": [["pipeline", "plan"]],
    "train": [["stages.train", "many", "both", "--workers", "2"]],
    "report": [["stages.evaluate", "cached", "many", "both"]],
    "doctor": [["pipeline", "doctor"]],
}
"""Commands of each step."""
Row = dict[str, Any]


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sizes: Annotated[str, typer.Option(help="Numbers of utterances.")] = SIZES,
    folder: Annotated[Path | None, typer.Option(help="Where projects are kept.")] = None,
    steps: Annotated[str, typer.Option(help="Steps to measure, in order.")] = ",".join(STEPS),
) -> None:
    """Measure and print peaks and seconds."""
    counts = [int(size) for size in sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="heronry-benchmark-") as made:
        place = folder or Path(made)
        if shutil.disk_usage(place).free < max(counts) * BYTES:
            raise SystemExit(
                f"{place} has no room for {max(counts) * BYTES / 1e9:.1f} GB: give --folder a disk "
                "with more, or smaller --sizes"
            )
        wanted = steps.split(",")
        result = {str(count): _measured(place / str(count), count, wanted) for count in counts}
    print(json.dumps(result) if as_json else table(result))


def _measured(project: Path, count: int, wanted: Sequence[str]) -> Row:
    corpus, store = project / "corpus", project / "store"
    if not project.exists():
        write_corpus(corpus, count)
        (project / "params.yaml").write_text(yaml.safe_dump(_params(), sort_keys=False))
    environment = os.environ | {
        "HERONRY_MANY_ROOT": str(corpus),
        "HERONRY_STORE": str(store),
        "HERONRY_DEVICE": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    found: Row = {}
    for step in wanted:
        if step == "extract" and not any(store.glob("*/*.h5")):
            alone(fill_store, project / "data/many/utterances", store)
        if step == "report":
            more_seeds(project / "runs/cached/many/both")
        commands = STEPS[step]
        each = [_run(command, project, environment) for command in commands]
        found[step] = {
            "peak_mib": max(row["peak_mib"] for row in each),
            **{
                key: round(sum(r[key] for r in each), 1) for key in ("cpu_seconds", "clock_seconds")
            },
        }
        sys.stderr.write(f"{count} {step}: {found[step]}\n")
    return found


def write_corpus(folder: Path, count: int) -> None:
    """Write the table and a recording for each speaker."""
    import soundfile  # here, so that the module loads where it is not installed

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        names = ["id", "audio", "text", "start", "stop", "label", "speaker", "gender"]
        table.writerow(names)
        for number in range(count):
            speaker, place = divmod(number, A_SPEAKER)
            audio, start = f"speaker_{speaker:05d}.wav", place / 100
            if not place:
                values = noise.uniform(-0.5, 0.5, round(RATE_HZ * RECORDING_SECONDS))
                soundfile.write(folder / audio, values, RATE_HZ, subtype="PCM_U8")
            text = f"so that is number {number} of all that we said"
            seconds = 2 + number * 7 % 6001 / 1000
            row = [f"utterance_{number:08d}", audio, text, start, round(start + seconds, 3)]
            gender = ("female", "male")[speaker % 2]
            table.writerow([*row, CLASSES[number % len(CLASSES)], f"s{speaker:05d}", gender])


def fill_store(utterances: Path, store: Path) -> None:
    """Write the shards of all slots as extraction would, of drawn vectors."""
    manifest, drawn = Manifest.read(utterances), np.random.default_rng(1)
    middles = drawn.normal(size=(len(CLASSES), WIDTH))
    for name in SLOTS.values():
        output = Extractor(Recipe(backbone_entry(name, _backbone(name)), store)).own
        output.store.folder.mkdir(parents=True)
        for shard in ShardPlan.of(manifest, "audio", None):
            noise = drawn.normal(0, 2, (len(shard.utterances), WIDTH))
            rows = [
                output.writer.round(
                    utterance.id,
                    content,
                    (middles[_number(utterance.id) % len(CLASSES)] + noise[k])[None].astype("f4"),
                )
                for k, (utterance, content) in enumerate(
                    zip(shard.utterances, shard.contents, strict=True)
                )
            ]
            output.writer.write(output.store.path(shard.fingerprint), rows)


def more_seeds(run: Path) -> None:
    """Copy the first seed's results, so that there are `SEEDS`."""
    for path in sorted(run.glob("seed_0/fold_*/*.csv")):
        lines = path.read_text().splitlines(keepends=True)
        names = lines[0].rstrip("\n").split(",")
        if path.name == "probes.csv":  # one file serves all seeds
            continue
        place = names.index("seed") if "seed" in names else None
        for seed in range(1, SEEDS):
            out = run / f"seed_{seed}" / path.parent.name / path.name
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("w") as file:
                file.write(lines[0])
                for line in lines[1:]:
                    cells = line.split(",")
                    if place is not None:
                        cells[place] = str(seed)
                    file.write(",".join(cells))
    record = json.loads((run / "run.json").read_text())
    record |= {"seeds": list(range(SEEDS)), "files": digests(run)}
    (run / "run.json").write_text(json.dumps(record))


def _number(id: str) -> int:
    return int(id.rpartition("_")[2])


def _backbone(name: str) -> dict[str, Any]:
    # Two entries of one kind are two caches if their versions differ.
    version = 1 + list(SLOTS.values()).index(name)
    return {"kind": "tone", "dim": WIDTH, "pooling": "mean", "version": version}


def _params() -> dict[str, Any]:
    empty = dict.fromkeys(("text", "speech", "nonverbal", "prosody", "spectral", "asr"), "none")
    model = {**empty, **SLOTS, "kind": "linear", "seeds": 1}
    model["train"] = {"epochs": 1, "batch_size": 256, "lr": 0.01}
    protocol = {"protocol": "speaker_folds", "folds": FOLDS}
    return {
        "fusion": "both",
        "regime": "cached",
        "corpus": "many",
        "seeds": None,
        "train": {"epochs": None},
        "corpora": {"many": {"kind": "manifest", **protocol}},
        "backbones": {**{name: _backbone(name) for name in SLOTS.values()}, "none": {}},
        "asr_backbones": {},
        "transcribe": vars(Transcription()),
        "models": {"both": model},
    }


def _run(command: Sequence[str], project: Path, environment: dict[str, str]) -> Row:
    """Run a module in a project, and measure it and its children."""
    before, clock = _children_seconds(), time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=project,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        peak = [0.0]
        with _sampling(process.pid, peak):
            process.wait()
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read().decode()[-4000:]}")
    return {
        "peak_mib": round(peak[0]),
        "cpu_seconds": _children_seconds() - before,
        "clock_seconds": time.perf_counter() - clock,
    }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def _sampling(process: int, peak: list[float], every: float = 0.5) -> Iterator[None]:
    """Keep the largest memory of a process and its descendants, in MiB, within this context."""
    over = threading.Event()

    def sample() -> None:
        while not over.wait(every):
            peak[0] = max(peak[0], sum(map(_proportional_mib, [process, *_descendants(process)])))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _proportional_mib(process: int) -> float:
    """Memory of a process, its share of pages that others hold too; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def table(result: dict[str, Row]) -> str:
    """For people."""
    lines = [f"{'utterances':>12}  {'step':8}{'peak MiB':>10}{'CPU s':>10}{'clock s':>10}"]
    for count, steps in result.items():
        lines += [
            f"{count:>12}  {step:8}{row['peak_mib']:>10}{row['cpu_seconds']:>10}"
            f"{row['clock_seconds']:>10}"
            for step, row in steps.items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
