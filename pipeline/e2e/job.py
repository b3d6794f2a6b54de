"""One end-to-end training: a seed and a fold, from backbones and fusion to the files of its folder.

It uses all cores, or the device, by itself, so trainings follow one another. On a CPU, with the
same number of threads (torch's own: that of the cores, or OMP_NUM_THREADS), it gives the same bytes
again; on a GPU where all operations of the model have a deterministic algorithm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from features.backbone.base import Backbone
from features.backbone.entry import BackboneEntry
from features.corpus.places import members_in
from pipeline.e2e.export import BACKBONES, export, exportable
from pipeline.e2e.extras import live_conditions, write_live_probes
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.setup import init_folder, warm_start
from pipeline.e2e.source import LiveExamples
from pipeline.e2e.watch import TuneProgress
from pipeline.model.checkpoint import describe_model, make_model, save_model
from pipeline.params.tuning import TuneParams
from pipeline.runs.conditions import write_conditions
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
from pipeline.runtime.stopping import stop_requests
from pipeline.training.fitting import NotFiniteError, TooLargeError
from pipeline.training.loop import Fitted, fit


@dataclass(frozen=True)
class TuneJob:
    """What one end-to-end training needs.

    Attributes:
        job: What it has in common with a training on caches; its slots are those read from caches.
        entries: Backbones of the live slots.
        examples: Usable utterances; its backbones are replaced by the job's own.
        params: Section `e2e` of params.yaml.
        corpus: Name of the corpus.
        recognised: Whether the trained model is tested on recognised words.
    """

    job: Job
    entries: Mapping[str, BackboneEntry]
    examples: LiveExamples
    params: TuneParams
    corpus: str
    recognised: bool = False


def run_tune_job(tuning: TuneJob, show: ShowLine | None = None, *, every: float = 30.0) -> Outcome:
    """Train, predict, export, and write the files of the job's folder.

    Of several processes all train and predict, and the first one writes.

    Args:
        tuning: The training.
        show: Shows its progress; None: nothing is shown.
        every: Seconds between two lines within an epoch.

    Returns:
        Facts for run.json; of parameters `parameters` that are trained, with adapters, and
        `parameters_total` without adapters, which are merged into the weights.

    Raises:
        StoppedError: If SIGTERM arrived; the training is saved.
        HeronryError: If the loss is not finite, or an utterance does not fit the memory.
    """
    job, ranks = tuning.job, tuning.examples.ranks
    with repeatable(job.device, threads=torch.get_num_threads()):
        model, examples = _make(tuning)
        trained = parameter_count(model, trained=True)
        ranks.broadcast_weights(model)
        # Dropout must differ between processes, whose rows are different ones.
        ranks.seed_others(job.seed)
        fitted = _fit(tuning, model, examples, show, every)
        model.merge()
        if ranks.is_first:
            # The fusion alone, as a training on caches writes it: it reads the streams of the
            # exported backbones.
            save_model(job.out, model.fusion, **_construction(job, examples))
            write_history(job, fitted)
        clipped = write_predictions(job, model, examples)
        _write_extras(tuning, model, examples)
        if ranks.is_first:
            _export(tuning, model, examples)
        ranks.wait()
    JobProgress(job, show).finish(fitted)
    total = parameter_count(model, trained=False)
    counts = {"parameters": trained, "parameters_total": total}
    return Outcome(counts, fitted.skipped, clipped)


def _make(tuning: TuneJob) -> tuple[EndToEnd, LiveExamples]:
    """The model before training, and the examples that its backbones read."""
    job = tuning.job
    backbones = {slot: entry.build() for slot, entry in tuning.entries.items()}
    examples = dataclasses.replace(tuning.examples, backbones=backbones)
    torch.manual_seed(job.seed)
    width = job.outputs.width
    fusion = make_model(job.kind, job.args, examples.specs, width, inputs=job.inputs)
    init = tuning.params.beginning
    if init is not None:
        warm_start(fusion, init_folder(init), job, describe_model(**_construction(job, examples)))
    return EndToEnd(fusion, examples.backbones, tuning.params).to(job.device), examples


def _construction(job: Job, examples: LiveExamples) -> dict[str, Any]:
    """What model.json says of the fusion: its kind, keywords, streams and classes."""
    return {
        "kind": job.kind,
        "args": job.args,
        "specs": examples.specs,
        "classes": job.classes,
        "inputs": job.inputs,
        "outputs": job.outputs.to_dict(),
    }


def _fit(
    tuning: TuneJob,
    model: EndToEnd,
    examples: LiveExamples,
    show: ShowLine | None,
    every: float,
) -> Fitted:
    """Train; on SIGTERM, or after a fault, a message says where to resume from."""
    job = tuning.job
    with stop_requests(launched=examples.ranks.count > 1) as request:
        progress = TuneProgress(job, examples, tuning.params, request, show, every=every)
        try:
            with progress.trackers:
                return fit(
                    model,
                    examples,
                    train=training_split(job, examples),
                    valid=examples.split(job.fold, "valid"),
                    params=job.params,
                    seed=job.seed,
                    progress=progress,
                )
        except (NotFiniteError, TooLargeError) as error:
            last = progress.checkpoints.last
            kept = "there is no checkpoint yet" if last is None else f"the last one is {last}"
            raise type(error)(f"{error} ({kept})") from error


def _write_extras(tuning: TuneJob, model: EndToEnd, examples: LiveExamples) -> None:
    """Write what the report adds to the model's own scores: worse conditions, and probes."""
    job, first = tuning.job, examples.ranks.is_first
    test = examples.split(job.fold, "test")
    conditions = live_conditions(examples, test, job.seed, recognised=tuning.recognised)
    path = job.out / "conditions.csv"
    header = job.columns.conditions
    write_conditions(
        path, model, conditions, test, fusion=model.fusion, header=header, writes=first
    )
    write_live_probes(job.out / "probes.csv", model, examples, job.fold)


def _export(tuning: TuneJob, model: EndToEnd, examples: LiveExamples) -> None:
    """Write the backbones that were trained; frozen ones are what they were."""
    train = [examples.utterances[label.id] for label in examples.split(tuning.job.fold, "train")]
    members = members_in(Path("data", tuning.corpus, "utterances"))
    for slot, tuned in model.tuned.items():
        backbone: Backbone = model.backbones[slot]
        if tuned.how.tune != "frozen" and exportable(backbone):
            folder = tuning.job.out / BACKBONES / slot
            export(folder, tuning.entries[slot], backbone, tuning.corpus, train, members)
