"""Every fusion on the demo corpus: score, interval, spread over seeds, parameters, time, memory.

    python -m benchmarks.fusions [--json] [--seeds 3] [--fusions gat,hcam] [--random-weights]

Run it after `make run`. Features that a fusion lacks are extracted through DVC first. With
`--random-weights` come models on CED-small and emotion2vec base, which are made here with random
weights of the real shape; their scores are not those of the public checkpoints. Each fusion is
trained in a process of its own below runs/benchmark, outside of DVC's outputs; one that was
trained with the same settings is not trained again, so that a run of hours can be stopped and gone
on with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.shared.random_weights import SUFFIX, make_checkpoint, with_random_weights
from features.corpus.manifest import Manifest
from features.corpus.places import with_audio
from features.extraction.extract import extract
from features.files.records import read_json, write_json
from features.files.yaml_text import read_params_file
from features.settings.locations import device, store_root
from pipeline.cached.run import train_model
from pipeline.params.catalogue.entries import with_catalogue
from pipeline.params.file import Params
from pipeline.report.evaluate import evaluate
from pipeline.runs.record import filled_slots

WORK = Path("runs", "benchmark")
SHOWN = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_sd", "macro_f1", "weighted_f1")


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seeds: Annotated[int, typer.Option(help="Of each fusion.")] = 3,
    fusions: Annotated[str, typer.Option(help="Default: all entries of models.")] = "",
    corpus: str = "demo",
    random_weights: Annotated[bool, typer.Option(help="Also models on random weights.")] = False,
    train: Annotated[str, typer.Option(help="One fusion, in this process.", hidden=True)] = "",
) -> None:
    """Train what is missing and print a row for each fusion."""
    params = Params(**with_catalogue(read_params_file(Path("params.yaml"))))
    params = dataclasses.replace(params, seeds=seeds, corpus=corpus)
    if random_weights:
        params = with_random_weights(params, WORK / "checkpoints")
    if train:
        _train(params, train)
        return
    rows = {}
    for name in fusions.split(",") if fusions else params.models:
        rows[name] = _row(params, name)
        sys.stderr.write(f"{name}: {json.dumps(rows[name])}\n")
    print(json.dumps({"corpus": corpus, "seeds": seeds, "fusions": rows}) if as_json else "")
    for name, row in () if as_json else sorted(rows.items(), key=lambda item: -item[1]["accuracy"]):
        print(
            f"{name:12} {row['accuracy']:.3f} [{row['accuracy_low']:.3f}, "
            f"{row['accuracy_high']:.3f}]  {row['parameters']:>11,} parameters  "
            f"{row['train_seconds']:6.0f} s ({row['cpu_seconds']:.0f} of processors)  "
            f"{row['peak_mib']:5.0f} MiB"
        )


def _row(params: Params, name: str) -> dict[str, Any]:
    """The result of a fusion, trained now unless it was with these settings."""
    settings = [params.models[name], params.train, params.seeds, params.corpus]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    path = WORK / f"{params.corpus}-{name}-{digest}.json"
    if not path.exists():
        _extract(params, name)
        WORK.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.fusions", "--train", name]
        options = ["--seeds", str(params.seeds), "--corpus", params.corpus]
        added = any(str(slot).endswith(SUFFIX) for slot in params.models[name].values())
        options += ["--random-weights"] * added
        child = subprocess.Popen([*command, *options])
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"training {name} failed; see above")
        # Memory: of the largest process among it and its workers, one of which trains a seed. Time
        # of the processors: a training job has one thread, and other work does not count.
        row = read_json(_result(params, name)) | {
            "peak_mib": round(usage.ru_maxrss / 1024, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        }
        write_json(path, row)
    return read_json(path)


def _extract(params: Params, name: str) -> None:
    """Have DVC make the caches that the fusion reads, if one is missing."""
    slots = filled_slots(params, params.model(name), params.corpus)
    for folder in sorted({str(folder) for folder in slots.values()}):
        link = WORK / folder
        if folder.endswith(SUFFIX):
            _extract_here(params, link)
        elif not Path(folder).exists():
            target = f"stages/extract/dvc.yaml:extract@{params.corpus}-{link.name}"
            subprocess.run(
                [sys.executable, "-m", "dvc", "repro", target], check=True, stdout=sys.stderr
            )
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(folder).resolve())


def _extract_here(params: Params, out: Path) -> None:
    """Extract with random weights, beside the caches that DVC keeps."""
    if out.exists():
        return
    make_checkpoint(params.backbones[out.name])
    utterances = Path("data", params.corpus, "utterances")
    manifest = with_audio(Manifest.read(utterances), utterances)
    extract(manifest, params.backbone(out.name), out, store=store_root())


def _train(params: Params, name: str) -> None:
    """Train in runs/benchmark, where data and caches are linked to, and write the result."""
    here = Path.cwd()
    if not (WORK / "data").is_symlink():
        (WORK / "data").symlink_to(here / "data")
    os.chdir(WORK)
    run = train_model(params, name, params.corpus, device=device())
    metrics = evaluate(run, Path("data", params.corpus, "labels")).metrics
    facts = {key: metrics[key] for key in (*SHOWN, "parameters", "train_seconds") if key in metrics}
    os.chdir(here)
    write_json(_result(params, name), facts)


def _result(params: Params, name: str) -> Path:
    return WORK / f"{params.corpus}-{name}.result.json"


if __name__ == "__main__":
    typer.run(main)
