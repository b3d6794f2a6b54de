"""A model of params.yaml end to end on a corpus: all seeds and folds, from audio to a run folder.

The folder is that of the cached regime (docs/design.md), with the encoders that were trained beside
each model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from features.backbone.entry import BackboneEntry
from features.corpus.labels_folder import CARD, read_card, read_labelled
from features.errors import ParamsError
from features.files.records import write_json
from features.files.writing import remove_folder
from features.process.terminal import LiveLines
from pipeline.data.examples import join
from pipeline.e2e.extras import live_recognised
from pipeline.e2e.job import Size, TuneJob, run_tune_job
from pipeline.e2e.resume import tune_folder
from pipeline.e2e.setup import (
    beginning_of,
    cached_slots,
    check_same_splits,
    live_entries,
    live_examples,
    protocol_problems,
    read_manifest,
)
from pipeline.e2e.source import LiveExamples
from pipeline.params.file import ModelEntry, Params, own_problems
from pipeline.params.slot_reads import tell_odd_slots
from pipeline.runs.job import Job
from pipeline.runs.layout import digests
from pipeline.runs.record import check_splits, describe, job_of, jobs_of, tell_dropped, tell_labels
from pipeline.runtime.environment import environment
from pipeline.runtime.pool import available_cores
from pipeline.runtime.resume import forget
from pipeline.training.ranks import ALONE, Ranks

REGIME = "e2e"
DECODERS = 4  # threads at most that prepare batches beside an accelerator


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

    Args:
        params: params.yaml.
        fusion: Entry of `models`.
        corpus: Entry of `corpora`; its manifest, labels and caches lie below the current folder.
        device: Where to compute.
        threads: That decode ahead; None: one on a CPU, which the networks fill.
        ranks: Processes that train each model together; the first one writes.

    A run that was killed goes on where it was; it ends with the same files.

    Raises:
        HeronryError: If manifest, labels, caches, checkpoints or parameters are wrong, a loss is
            not finite, an utterance does not fit the memory, or SIGTERM came.
    """
    model = params.model(fusion)
    found = own_problems(params)
    found = found or protocol_problems(params, model)
    if found:
        raise ParamsError("\n".join(found))
    out = Path("runs", REGIME, corpus, fusion)
    odd = tell_odd_slots(params, model, corpus) if ranks.is_first else {}
    if ranks.is_first:
        remove_folder(out)
    device = ranks.device or device
    card = read_card(Path("data", corpus, "labels", CARD))
    entries = live_entries(params, model)
    examples = _examples(params, model, corpus, device, threads, ranks)
    cached = {slot: reader.folder for slot, reader in examples.cached.readers.items()}
    slots = _slots(model, entries, examples)  # hashes weights before they change
    started = time.monotonic()
    job = job_of(params, model, examples, cached, title=f"fine-tune {fusion}", device=device)
    kept = tune_folder(params, model, examples, slots, device)
    _check_same(ranks, kept)
    asr = live_recognised(params, model, examples, slots["text"])
    heard = asr is not None
    tuning = TuneJob(job, entries, examples, params.tuning(), corpus, kept=kept, recognised=heard)
    size = _run_all(tuning, list(jobs_of(job, out, params.seeds_of(model), card)))
    if not ranks.is_first:
        return out
    run = describe(params, model, card, examples, regime=REGIME)
    run |= {"e2e": vars(params.tuning()), "corpus": corpus, "slots": slots}
    run |= ({"asr": asr} if asr else {}) | odd
    run |= {"parameters": size.trained, "parameters_total": size.total}
    run |= {"train_seconds": round(time.monotonic() - started, 1)}
    if ranks.count > 1:
        run |= {"processes": ranks.count}
    run |= {"environment": environment(device), "files": digests(out)}
    write_json(out / "run.json", run)
    forget(kept)
    return out


def _examples(
    params: Params,
    model: ModelEntry,
    corpus: str,
    device: str,
    threads: int | None,
    ranks: Ranks,
) -> LiveExamples:
    """What can be used, in every split of every fold."""
    card, labels = read_labelled(Path("data", corpus, "labels"))
    init = params.tuning().beginning
    if init is not None:
        check_same_splits(beginning_of(init), corpus, labels, int(card["folds"]))
    cached = join(cached_slots(params, model, corpus), labels, card["classes"], verify=True)
    entries, manifest = live_entries(params, model), read_manifest(corpus)
    examples = live_examples(params, model, cached, manifest, entries)
    if threads is None:
        threads = 1 if device == "cpu" else min(DECODERS, available_cores())
    # Trying them needs no page-locked memory, whose device has not been entered here.
    examples = replace(examples, threads=threads, ranks=ranks).usable()
    examples = replace(examples, pinned=device.startswith("cuda"))
    if ranks.is_first:
        tell_dropped(f"fine-tune {model.name} on {corpus}", examples, len(labels))
    check_splits(examples, int(card["folds"]))
    if ranks.is_first:
        tell_labels(f"fine-tune {model.name} on {corpus}", examples)
    return examples


def _run_all(tuning: TuneJob, jobs: list[Job]) -> Size:
    """One training after the other; the sizes of all are the same."""
    shown, sizes = LiveLines(), set()
    for number, job in enumerate(jobs):
        tell = partial(shown.show, number) if tuning.examples.ranks.is_first else None
        sizes.add(run_tune_job(replace(tuning, job=job), tell, every=shown.every))
    return sizes.pop()


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


def _slots(
    model: ModelEntry, entries: Mapping[str, BackboneEntry], examples: LiveExamples
) -> dict[str, Any]:
    """Backbone, stream and provenance by slot; of live ones what they were before training."""
    origins = {slot: e.provenance(examples.backbones[slot]) for slot, e in entries.items()}
    readers = examples.cached.readers
    origins |= {slot: dict(reader.provenance) for slot, reader in readers.items()}
    specs = examples.specs
    return {
        slot: {"backbone": name, "spec": specs[slot].to_dict(), "provenance": origins[slot]}
        if slot in specs
        else None
        for slot, name in model.slots.items()
    }
