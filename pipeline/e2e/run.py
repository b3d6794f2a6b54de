"""Trains a model of params.yaml end to end: all seeds and folds, from audio to a run folder.

The folder is that of the cached regime (docs/design.md), with the encoders that were trained beside
each model.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from features.arguments import refuse
from features.backbone.entry import BackboneEntry
from features.errors import ParamsError
from features.process.terminal import LiveLines
from pipeline.data.examples import join
from pipeline.e2e.extras import live_recognised
from pipeline.e2e.job import TuneJob, run_tune_job
from pipeline.e2e.setup import (
    as_recognised,
    cached_slots,
    check_same_splits,
    init_folder,
    live_entries,
    live_examples,
    protocol_problems,
    read_manifest,
)
from pipeline.e2e.source import LiveExamples
from pipeline.model.inputs import InputSettings
from pipeline.params.file import Params, own_problems
from pipeline.runs.record import Run
from pipeline.runtime.pool import available_cores
from pipeline.runtime.resume import forget, run_folder, shard_checksums
from pipeline.training.ranks import ALONE, Ranks

DECODERS = 4  # most threads that prepare batches beside an accelerator
# Keys of `e2e` that decide no number; of `init` the weights count, and not where they are.
FREE = ("save_seconds", "keep", "init")


def finetune_model(
    params: Params,
    fusion: str,
    corpus: str,
    *,
    device: str,
    threads: int | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Train `models.<fusion>` with its backbones on `corpus`; returns the run folder.

    A run that was killed resumes where it was, and on a CPU ends with the same files
    (`pipeline.runtime.checkpoints` says when on a GPU).

    Args:
        params: params.yaml.
        fusion: Entry of `models`.
        corpus: Entry of `corpora`; its manifest, labels and caches lie below the current folder.
        device: Where to compute.
        threads: Threads that decode ahead; None: one on a CPU, whose cores the networks use.
        ranks: Processes that train each model together; the first one writes.

    Raises:
        HeronryError: If manifest, labels, caches, checkpoints or parameters are wrong, a loss is
            not finite, an utterance does not fit the memory, or SIGTERM arrived.
    """
    model = params.model(fusion)
    refuse(own_problems(params) or protocol_problems(params, model))
    run = Run.open(params, model, corpus, "e2e", writes=ranks.is_first)
    device = ranks.device or device
    entries = live_entries(params, model)
    examples = _examples(run, entries, device, threads, ranks)
    # Before training, which changes the weights that this hashes.
    slots = run.slots(examples.specs, _provenance(entries, examples))
    started = time.monotonic()
    kept = tune_folder(run, examples, slots, device)
    _check_same(ranks, kept)
    asr = live_recognised(params, model, examples, slots["text"])
    cached = {slot: reader.folder for slot, reader in examples.cached.readers.items()}
    jobs = run.jobs(examples.labels, cached, device, kept=kept)  # one after the other
    recognised = asr is not None
    tuning = TuneJob(
        jobs[0], entries, examples, params.tuning(model), corpus, recognised=recognised
    )
    lines, outcomes = LiveLines(), []
    for number, job in enumerate(jobs):
        show = partial(lines.show, number) if ranks.is_first else None
        outcomes.append(run_tune_job(replace(tuning, job=job), show, every=lines.every))
    if not ranks.is_first:
        return run.out
    run.write(
        examples,
        slots=slots,
        asr=asr,
        outcomes=outcomes,
        seconds=time.monotonic() - started,
        device=device,
        processes=ranks.count,
    )
    forget(kept)
    return run.out


def _examples(
    run: Run,
    entries: Mapping[str, BackboneEntry],
    device: str,
    threads: int | None,
    ranks: Ranks,
) -> LiveExamples:
    """The utterances that can be used, in every split of every fold."""
    params, corpus = run.params, run.corpus
    init = params.tuning(run.model).beginning
    if init is not None:
        check_same_splits(init_folder(init), corpus, run.labels, run.folds)
    folders = cached_slots(params, run.model, corpus)
    layers = InputSettings.of(run.model.inputs).layer
    cached = join(folders, run.labels, run.classes, layers=layers)
    cached = replace(cached, targets=run.targets)
    manifest = as_recognised(params, run.model, read_manifest(corpus))
    examples = live_examples(params, run.model, cached, manifest, entries)
    if threads is None:
        threads = 1 if device == "cpu" else min(DECODERS, available_cores())
    # Trying to read them needs no page-locked memory, and the device is not entered here.
    examples = replace(examples, threads=threads, ranks=ranks).usable()
    examples = replace(examples, pinned=device.startswith("cuda"))
    run.check(examples)
    return examples


def _provenance(
    entries: Mapping[str, BackboneEntry], examples: LiveExamples
) -> dict[str, Mapping[str, Any]]:
    """Provenance by slot: of live slots their backbones', of others that of their caches."""
    live = {slot: entry.provenance(examples.backbones[slot]) for slot, entry in entries.items()}
    cached = {slot: reader.provenance for slot, reader in examples.cached.readers.items()}
    return {**live, **cached}


def tune_folder(run: Run, examples: LiveExamples, slots: Mapping[str, Any], device: str) -> Path:
    """Folder of the half-done trainings of a run, named by everything that decides its numbers.

    `slots` is the content of `slots` in run.json: provenance by slot, with the hashes of weights.
    """
    tuning = dataclasses.asdict(run.params.tuning(run.model))
    read = (examples.utterances[label.id] for label in examples.labels)
    facts = {
        "e2e": {name: value for name, value in tuning.items() if name not in FREE},
        "init": (tuning["init"] or {}).get("sha256"),
        "utterances": [(u.id, u.sha256, u.text, u.start, u.stop, u.seconds) for u in read],
        "caches": shard_checksums(examples.cached),
        **run.facts,
        "slots": dict(slots),
        "libraries": [version(name) for name in ("transformers", "peft")],
    }
    if any(backbone.reads == "asr" for backbone in examples.backbones.values()):
        facts["asr"] = [examples.utterances[label.id].asr for label in examples.labels]
    protocol = run.params.training(run.model)
    return run_folder(run.model, protocol, examples, regime="e2e", device=device, facts=facts)


def _check_same(ranks: Ranks, kept: Path) -> None:
    """Refuse hosts that differ in params.yaml, labels, caches, weights, libraries or sources."""
    names = ranks.gather(kept.name)
    others = [number for number, name in enumerate(names) if name != names[0]]
    if others:
        raise ParamsError(
            f"the processes {others} of {ranks.count} have other settings, data, checkpoints, "
            "libraries or sources than process 0; expected the same on all hosts: the same commit, "
            "`dvc pull` or `dvc checkout`, and the same packages"
        )
