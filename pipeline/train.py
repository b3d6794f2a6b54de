"""A model of params.yaml on a corpus: all seeds and folds, from cache folders to a run folder."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.errors import CacheError, ParamsError
from features.manifest import Label, read_labels
from features.records import read_json, write_json
from pipeline.data import Examples, join
from pipeline.environment import environment
from pipeline.example_source import ExampleSource
from pipeline.fusion._inputs import InputSettings
from pipeline.job_pool import run_jobs
from pipeline.jobs import Job
from pipeline.left_out import message
from pipeline.model_card import write_model_card
from pipeline.params import ModelEntry, Params, own_problems
from pipeline.probes import write_probes
from pipeline.resident import release, resident_part
from pipeline.resume import forget, run_folder
from pipeline.runs import FORMAT, VERSION


def train_model(
    params: Params, fusion: str, corpus: str, *, device: str, workers: int | None = None
) -> Path:
    """Train `models.<fusion>` on `corpus`; returns the run folder.

    Args:
        params: params.yaml.
        fusion: Entry of `models`.
        corpus: Entry of `corpora`; its labels and caches lie below the current folder.
        device: Where to compute.
        workers: Processes side by side.

    Raises:
        HeronryError: If labels, caches or parameters are wrong.
    """
    model = params.model(fusion)
    found = own_problems(params)
    if found:
        raise ParamsError("\n".join(found))
    out = Path("runs", "cached", corpus, fusion)
    shutil.rmtree(out, ignore_errors=True)
    labels_folder = Path("data", corpus, "labels")
    card, labels = read_json(labels_folder / "card.json"), read_labels(labels_folder)
    slots = filled_slots(params, model, corpus)
    examples = join(slots, labels, card["classes"], verify=True)
    if examples.dropped:
        told = message(examples.dropped, slots, len(labels))
        sys.stderr.write(f"train {fusion} on {corpus}: {told}\n")
    check_splits(examples, int(card["folds"]))
    started = time.monotonic()
    kept = _kept(params, model, examples, device)
    job = _job(params, model, examples, labels, device)
    job = replace(job, kept=kept, resident=resident_part(device, workers or 1))
    jobs = [
        replace(job, seed=seed, fold=fold, out=out / f"seed_{seed}" / f"fold_{fold}")
        for seed in params.seeds_of(model)
        for fold in range(int(card["folds"]))
    ]
    sizes = set(run_jobs(jobs, workers=workers))
    release()
    first = params.seeds_of(model)[0]  # a probe has no seed
    for fold in range(int(card["folds"])):
        write_probes(out / f"seed_{first}" / f"fold_{fold}" / "probes.csv", examples, fold)
    out.mkdir(parents=True, exist_ok=True)
    seconds = round(time.monotonic() - started, 1)
    facts: dict[str, Any] = {"parameters": sizes.pop(), "train_seconds": seconds}
    facts["environment"] = environment(device)
    run = _describe(params, model, corpus, card, examples) | facts
    write_json(out / "run.json", run)
    write_model_card(out, run, card)
    forget(kept)
    return out


def filled_slots(params: Params, model: ModelEntry, corpus: str) -> dict[str, Path]:
    """Cache folder by slot, of the slots that are not `none`."""
    return {
        slot: Path("cache", corpus, backbone)
        for slot, backbone in model.slots.items()
        if params.backbone(backbone).kind != "none"
    }


def check_splits(examples: ExampleSource, folds: int) -> None:
    """Refuse a fold without training, validation or test utterances before any time is spent."""
    if not examples.labels:
        raise CacheError(
            f"no labelled utterance has features in all slots ({sorted(examples.specs)}); see "
            "rejected.csv in their cache folders"
        )
    for fold in range(folds):
        for split in ("train", "valid", "test"):
            examples.split(fold, split)


def _kept(params: Params, model: ModelEntry, examples: Examples, device: str) -> Path:
    """Where the half-done trainings lie."""
    return run_folder(
        kind=model.kind,
        # No constructor has that keyword: what happens before the model decides numbers as well.
        args={**model.args, "inputs": _inputs(model)},
        params=params.training(model),
        examples=examples,
        device=device,
    )


def _job(
    params: Params, model: ModelEntry, examples: Examples, labels: Sequence[Label], device: str
) -> Job:
    """What all jobs have in common."""
    return Job(
        title=f"train {model.name}",
        kind=model.kind,
        args=model.args,
        slots={slot: reader.folder for slot, reader in examples.readers.items()},
        labels=labels,
        classes=examples.classes,
        params=params.training(model),
        seed=0,
        fold=0,
        out=Path(),
        device=device,
        inputs=_inputs(model),
    )


def _inputs(model: ModelEntry) -> dict[str, Any]:
    return InputSettings.of(model.inputs).to_dict()


def _describe(
    params: Params, model: ModelEntry, corpus: str, card: dict[str, Any], examples: Examples
) -> dict[str, Any]:
    slots: dict[str, Any] = {}
    for slot, backbone in model.slots.items():
        reader = examples.readers.get(slot)
        slots[slot] = reader and {
            "backbone": backbone,
            "spec": reader.spec.to_dict(),
            "provenance": dict(reader.provenance),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "regime": "cached",
        "corpus": corpus,
        "fusion": model.name,
        "kind": model.kind,
        "classes": card["classes"],
        "slots": slots,
        "seeds": params.seeds_of(model),
        "folds": int(card["folds"]),
        "args": dict(model.args),
        "train": vars(params.training(model)),
        "utterances": len(examples.labels),
        "dropped": dict(examples.dropped),
        **({"inputs": _inputs(model)} if _inputs(model) else {}),
    }
