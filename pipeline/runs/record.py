"""What a trained run of either regime is made of: its jobs, and what run.json says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.corpus.label_checks import class_lines, lacking_classes, lacking_lines, named
from features.corpus.split_counts import count_classes
from features.errors import CacheError
from features.files.reasons import reasons_line
from pipeline.data.left_out import encode, summary
from pipeline.data.source import ExampleSource
from pipeline.model.inputs import InputSettings
from pipeline.params.file import ModelEntry, Params
from pipeline.runs.job import Job
from pipeline.runs.layout import FORMAT, VERSION


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


Card = Mapping[str, Any]
LISTED = 20  # warnings that a log quotes


def job_of(
    params: Params,
    model: ModelEntry,
    examples: ExampleSource,
    slots: Mapping[str, Path],
    *,
    title: str,
    device: str,
) -> Job:
    """What all trainings of a run have in common; `jobs_of` gives each its seed, fold and folder.

    Args:
        params: params.yaml.
        model: The model.
        examples: What it learns from.
        slots: Cache folder by slot.
        title: For progress lines.
        device: Where to compute.
    """
    return Job(
        title=title,
        kind=model.kind,
        args=model.args,
        slots=slots,
        labels=examples.labels,
        classes=examples.classes,
        params=params.training(model),
        seed=0,
        fold=0,
        out=Path(),
        device=device,
        inputs=inputs_of(model),
    )


def jobs_of(job: Job, out: Path, seeds: list[int], card: Card) -> Iterator[Job]:
    """One job for each seed and fold, seeds first."""
    for seed in seeds:
        for fold in range(int(card["folds"])):
            yield replace(job, seed=seed, fold=fold, out=out / f"seed_{seed}" / f"fold_{fold}")


def describe(
    params: Params, model: ModelEntry, card: Card, examples: ExampleSource, *, regime: str
) -> dict[str, Any]:
    """The part of run.json that is known before training, but for the corpus and its slots."""
    noticed = {slot: dict(told) for slot, told in examples.noticed.items() if told}
    return {
        "format": FORMAT,
        "version": VERSION,
        "regime": regime,
        "fusion": model.name,
        "kind": model.kind,
        "classes": card["classes"],
        "seeds": params.seeds_of(model),
        "folds": int(card["folds"]),
        "args": dict(model.args),
        "train": vars(params.training(model)),
        "utterances": len(examples.labels),
        "dropped": {id: encode(reasons) for id, reasons in examples.dropped.items()},
        **({"noticed": noticed} if noticed else {}),
        **({"inputs": inputs_of(model)} if inputs_of(model) else {}),
    }


def inputs_of(model: ModelEntry) -> dict[str, Any]:
    """What happens to the streams before the model, as run.json has it; empty: nothing."""
    return InputSettings.of(model.inputs).to_dict()


def tell_dropped(doing: str, examples: ExampleSource, utterances: int) -> None:
    """Say on standard error which of the corpus's `utterances` are not used, or not wholly."""
    if examples.dropped:
        told = summary(examples.dropped, utterances)
        sys.stderr.write(f"{doing}: {told}\n")
    for slot, noticed in examples.noticed.items():
        if noticed:
            told = reasons_line(noticed.values())
            sys.stderr.write(f"{doing}: {len(noticed)} used in part by {slot}: {told}\n")


def tell_labels(doing: str, examples: ExampleSource) -> None:
    """Say on standard error which classes are trained, and what is odd about them.

    Told of the labels as they are used: with what was left out, a split may lose a class.
    """
    labels = examples.labels
    counts = count_classes(labels, [label.splits for label in labels], examples.classes)
    lines = [*class_lines(counts), *lacking_lines(lacking_classes(counts))]
    told = [f"{doing}: {len(examples.classes)} classes, {named(examples.classes)}"]
    told += [f"  warning: {line}" for line in lines[:LISTED]]
    told += [f"  and {len(lines) - LISTED} more warnings"] if len(lines) > LISTED else []
    sys.stderr.write("\n".join(told) + "\n")
