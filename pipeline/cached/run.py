"""Trains a model of params.yaml on cached features: all seeds and folds, into a run folder."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from features.arguments import refuse
from pipeline.cached.resident import placed, release, resident_part
from pipeline.data.examples import Examples, join
from pipeline.data.layer_views import open_cache
from pipeline.model.checkpoint import make_model, save_model
from pipeline.model.inputs import InputSettings
from pipeline.params.file import Params, own_problems
from pipeline.runs.conditions import cached_conditions, write_conditions
from pipeline.runs.job import (
    Job,
    JobProgress,
    Outcome,
    ShowLine,
    parameter_count,
    repeatable,
    training_split,
    write_history,
    write_predictions,
)
from pipeline.runs.layer_probes import write_layer_probes
from pipeline.runs.probes import cached_vectors, write_probes
from pipeline.runs.recognised import recognised
from pipeline.runs.record import Run, filled_slots
from pipeline.runs.rows import reader_of
from pipeline.runs.word_errors import TEXT
from pipeline.runtime.pool import run_jobs
from pipeline.runtime.resume import forget, run_folder, shard_checksums
from pipeline.training.loop import fit

# In torch's errors about operations without a deterministic algorithm: behind a name, and where
# CUBLAS_WORKSPACE_CONFIG was set to something else, or after cuBLAS had begun.
VARIES, CUBLAS = " does not have a deterministic implementation", "because it uses CuBLAS"


def train_model(
    params: Params, fusion: str, corpus: str, *, device: str, workers: int | None = None
) -> Path:
    """Train `models.<fusion>` on `corpus`; returns the run folder.

    A run that was killed resumes where it was, and on a CPU ends with the same files
    (`pipeline.runtime.checkpoints` says when on a GPU).

    Args:
        params: params.yaml.
        fusion: Entry of `models`.
        corpus: Entry of `corpora`; its labels and caches lie below the current folder.
        device: Where to compute.
        workers: Processes side by side; None: as many as cores on a CPU, one on another device.

    Raises:
        HeronryError: If labels, caches or parameters are wrong.
    """
    model = params.model(fusion)
    refuse(own_problems(params))
    run = Run.open(params, model, corpus, "cached")
    folders, layers = filled_slots(params, model, corpus), InputSettings.of(model.inputs).layer
    examples = join(folders, run.labels, run.classes, layers=layers)
    sketch = run.sketch(examples)
    some = {s: most for s in examples.readers if (most := sketch.frames_used(s)) is not None}
    examples = replace(examples, frames_max=some, targets=run.targets)
    run.check(examples)
    heard = recognised(params, model, corpus, examples)
    started = time.monotonic()
    slots = {slot: reader.folder for slot, reader in examples.readers.items()}
    kept = run_folder(
        model,
        params.training(model),
        examples,
        regime="cached",
        device=device,
        facts={"slots": shard_checksums(examples), **run.facts},
    )
    with tempfile.TemporaryDirectory(prefix="heronry-") as folder:
        jobs = run.jobs(
            (),
            slots,
            device,
            kept=kept,
            resident=resident_part(device, workers or 1),
            asr=heard.folder if heard else None,
            examples=examples.compact(Path(folder)),  # read once, and held once by all processes
        )
        outcomes = list(run_jobs(run_job, jobs, workers=workers))
        release()
    for job in jobs[: run.folds]:  # a probe has no seed, so the first seed's folders hold them
        train, test = examples.split(job.fold, "train"), examples.split(job.fold, "test")
        vectors = {
            slot: (cached_vectors(examples, slot, train), cached_vectors(examples, slot, test))
            for slot in examples.readers
        }
        write_probes(job.out / "probes.csv", reader_of(examples), train, test, vectors)
        if run.targets is None:
            write_layer_probes(job.out / "layers.csv", examples, job.fold, vectors)
        vectors.clear()  # before those of the next fold take as much room
    provenance = {slot: reader.provenance for slot, reader in examples.readers.items()}
    run.write(
        examples,
        slots=run.slots(examples.specs, provenance),
        asr=heard.record if heard else None,
        outcomes=outcomes,
        seconds=time.monotonic() - started,
        device=device,
    )
    forget(kept)
    return run.out


def run_job(job: Job, show: ShowLine | None = None) -> Outcome:
    """Train, predict, and write the files of `job.out`.

    Args:
        job: What to train.
        show: Shows its progress; None: nothing is shown.
    """
    try:
        return _trained(job, JobProgress(job, show), strict=True)
    except RuntimeError as error:
        operation = _varying(str(error))
        if operation is None or torch.device(job.device).type == "cpu":
            raise
        progress = JobProgress(job, show)
        progress.message(
            f"{operation} has no deterministic algorithm on {job.device}, and is used all the "
            "same: trained again, this job may have other results"
        )
    return _trained(job, progress, strict=False)


def _trained(job: Job, progress: JobProgress, *, strict: bool) -> Outcome:
    with progress.trackers, repeatable(job.device, strict=strict):
        torch.manual_seed(job.seed)
        layers = InputSettings.of(job.inputs).layer
        # Not verified again where `train_model` has done it: it takes a pass over all caches.
        examples = job.examples or join(
            job.slots, job.labels, job.classes, layers=layers, verify=False
        )
        examples = _placed(job, replace(examples, targets=job.targets))
        specs, classes, outputs = examples.specs, job.classes, job.outputs
        model = make_model(job.kind, job.args, specs, outputs.width, inputs=job.inputs)
        model = model.to(job.device)
        fitted = fit(
            model,
            examples,
            train=training_split(job, examples),
            valid=examples.split(job.fold, "valid"),
            params=job.params,
            seed=job.seed,
            progress=progress,
        )
        save_model(
            job.out,
            model,
            kind=job.kind,
            args=job.args,
            specs=specs,
            classes=classes,
            inputs=job.inputs,
            outputs=outputs.to_dict(),
        )
        write_history(job, fitted)
        clipped = write_predictions(job, model, examples)
        test = examples.split(job.fold, "test")
        heard = None if job.asr is None else open_cache(job.asr, TEXT, layers)
        conditions = cached_conditions(examples, test, job.seed, heard)
        path, header = job.out / "conditions.csv", job.columns.conditions
        write_conditions(path, model, conditions, test, header=header)
    progress.finish(fitted)
    parameters = {"parameters": parameter_count(model, trained=True)}
    return Outcome(parameters, fitted.skipped, clipped)


def _varying(error: str) -> str | None:
    """The operation that an error calls not deterministic; None: it says nothing of the kind."""
    operation, found, _ = error.partition(VARIES)
    if found:
        return operation
    return "cuBLAS (CUBLAS_WORKSPACE_CONFIG is not :4096:8)" if CUBLAS in error else None


def _placed(job: Job, examples: Examples) -> Examples:
    # Augmentation draws and computes on the CPU, before a batch goes to the device.
    augmented = job.params.seqaug > 0 or job.params.mixup > 0
    return placed(examples, job.device, part=0.0 if augmented else job.resident)
