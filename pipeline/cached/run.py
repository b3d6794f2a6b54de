"""A model of params.yaml on a corpus: all seeds and folds, from cache folders to a run folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from features.corpus.labels_folder import read_labelled
from features.errors import ParamsError
from features.files.records import write_json
from features.files.writing import remove_folder
from pipeline.cached.resident import placed, release, resident_part
from pipeline.data.examples import Examples, join
from pipeline.model.checkpoint import make_model, save_model
from pipeline.params.file import ModelEntry, Params, own_problems
from pipeline.params.slot_reads import tell_odd_slots
from pipeline.runs.conditions import write_conditions
from pipeline.runs.job import Job, Tell, Watch, repeatable, write_history, write_predictions
from pipeline.runs.layout import digests
from pipeline.runs.probes import write_probes
from pipeline.runs.recognised import recognised
from pipeline.runs.record import (
    check_splits,
    describe,
    filled_slots,
    inputs_of,
    job_of,
    jobs_of,
    tell_dropped,
    tell_labels,
)
from pipeline.runtime.environment import environment
from pipeline.runtime.pool import run_jobs
from pipeline.runtime.resume import forget, run_folder
from pipeline.training.loop import fit


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
    odd = tell_odd_slots(params, model, corpus)
    out = Path("runs", "cached", corpus, fusion)
    remove_folder(out)
    labels_folder = Path("data", corpus, "labels")
    card, labels = read_labelled(labels_folder)
    examples = join(filled_slots(params, model, corpus), labels, card["classes"], verify=True)
    examples = replace(examples, frames_max=_frames_max(model, examples))
    tell_dropped(f"train {fusion} on {corpus}", examples, len(labels))
    check_splits(examples, int(card["folds"]))
    tell_labels(f"train {fusion} on {corpus}", examples)
    heard = recognised(params, model, corpus, examples)
    started = time.monotonic()
    kept = _kept(params, model, examples, device)
    slots = {slot: reader.folder for slot, reader in examples.readers.items()}
    job = job_of(params, model, examples, slots, title=f"train {fusion}", device=device)
    # Each process reads the caches again, and drops by itself what they lack.
    part = resident_part(device, workers or 1)
    job = replace(job, labels=labels, kept=kept, resident=part, asr=heard.folder if heard else None)
    seeds = params.seeds_of(model)
    sizes = set(run_jobs(run_job, list(jobs_of(job, out, seeds, card)), workers=workers))
    release()
    for fold in range(int(card["folds"])):  # a probe has no seed
        write_probes(out / f"seed_{seeds[0]}" / f"fold_{fold}" / "probes.csv", examples, fold)
    out.mkdir(parents=True, exist_ok=True)
    run = describe(params, model, card, examples, regime="cached")
    run |= {"corpus": corpus, "slots": _slots(model, examples)}
    run |= ({"asr": heard.record} if heard else {}) | odd
    run |= {"parameters": sizes.pop(), "train_seconds": round(time.monotonic() - started, 1)}
    run |= {"environment": environment(device), "files": digests(out)}
    write_json(out / "run.json", run)
    forget(kept)
    return out


def _frames_max(model: ModelEntry, examples: Examples) -> int | None:
    """Frames of an utterance that the model uses; None: all."""
    specs, classes = examples.specs, len(examples.classes)
    with torch.device("meta"):  # without memory for its weights
        fusion = make_model(model.kind, model.args, specs, classes, inputs=model.inputs)
    return fusion.frames_max


def _kept(params: Params, model: ModelEntry, examples: Examples, device: str) -> Path:
    """Where the half-done trainings lie."""
    return run_folder(
        kind=model.kind,
        # No constructor has that keyword: what happens before the model decides numbers as well.
        args={**model.args, "inputs": inputs_of(model)},
        params=params.training(model),
        examples=examples,
        device=device,
    )


def _slots(model: ModelEntry, examples: Examples) -> dict[str, Any]:
    """Backbone, stream and provenance by slot."""
    readers = {slot: examples.readers.get(slot) for slot in model.slots}
    return {
        slot: reader
        and {
            "backbone": model.slots[slot],
            "spec": reader.spec.to_dict(),
            "provenance": dict(reader.provenance),
        }
        for slot, reader in readers.items()
    }


def run_job(job: Job, tell: Tell | None = None) -> int:
    """Train, predict, and write the files of `job.out`; returns the model's size.

    Args:
        job: What to train.
        tell: Told how far it is; None: nobody.
    """
    watch = Watch(job, tell)
    with repeatable(job.device):
        torch.manual_seed(job.seed)
        # Whoever starts jobs has verified the caches: each job again would read all of them again.
        examples = _placed(job, join(job.slots, job.labels, job.classes, verify=False))
        specs, classes = examples.specs, job.classes
        model = make_model(job.kind, job.args, specs, len(classes), inputs=job.inputs)
        model = model.to(job.device)
        fitted = fit(
            model,
            examples,
            train=examples.split(job.fold, "train"),
            valid=examples.split(job.fold, "valid"),
            params=job.params,
            seed=job.seed,
            watcher=watch,
        )
        save_model(
            job.out,
            model,
            kind=job.kind,
            args=job.args,
            specs=specs,
            classes=classes,
            inputs=job.inputs,
        )
        write_history(job, fitted)
        write_predictions(job, model, examples)
        test = examples.split(job.fold, "test")
        path = job.out / "conditions.csv"
        write_conditions(path, model, examples, test, job.seed, asr=job.asr)
    kept = fitted.history[fitted.best - 1]
    watch.tell(f"kept epoch {fitted.best}, {watch.score(kept)}", done=True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _placed(job: Job, examples: Examples) -> Examples:
    # Augmentation draws and computes on the host, before a batch goes to the device.
    augmented = job.params.seqaug > 0 or job.params.mixup > 0
    return placed(examples, job.device, part=0.0 if augmented else job.resident)
