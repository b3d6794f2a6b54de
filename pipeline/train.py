"""A model of params.yaml on a corpus: all seeds and folds, from cache folders to a run folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from features.errors import CacheError, ParamsError
from features.files import remove_folder
from features.labels_folder import read_labelled
from features.records import write_json
from pipeline.checkpoint import make_model
from pipeline.data import Examples, join
from pipeline.environment import environment
from pipeline.example_source import ExampleSource
from pipeline.job_pool import run_jobs
from pipeline.model_card import write_model_card
from pipeline.params import ModelEntry, Params, own_problems
from pipeline.probes import write_probes
from pipeline.recognised import recognised
from pipeline.resident import release, resident_part
from pipeline.resume import forget, run_folder
from pipeline.run_record import describe, inputs_of, job_of, jobs_of, tell_dropped, tell_labels
from pipeline.runs import digests
from pipeline.slot_reads import tell_odd_slots


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
    sizes = set(run_jobs(list(jobs_of(job, out, seeds, card)), workers=workers))
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
