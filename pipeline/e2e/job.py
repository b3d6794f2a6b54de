"""One end-to-end training: a seed and a fold, from backbones and fusion to the files of its folder.

It uses all cores or the device by itself, so trainings follow one another. The same bytes come out
again with as many threads (torch's own number: that of the cores, or OMP_NUM_THREADS).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from features.backbone.base import Backbone
from features.backbone.entry import BackboneEntry
from pipeline.e2e.export import BACKBONES, export, exportable
from pipeline.e2e.extras import live_conditions, write_live_probes
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.setup import beginning_of, warm_start
from pipeline.e2e.source import LiveExamples
from pipeline.e2e.watch import EVENTS, EventFiles, Speed, TuneWatch, Watchers
from pipeline.model.checkpoint import make_model, save_model
from pipeline.model.inputs import InputSettings
from pipeline.params.tuning import TuneParams
from pipeline.runs.conditions import write_guesses
from pipeline.runs.job import Job, Tell, Watch, repeatable, write_history, write_predictions
from pipeline.runtime.stopping import until_asked
from pipeline.training.fitting import TooLargeError
from pipeline.training.loop import Fitted, NotFiniteError, fit


@dataclass(frozen=True)
class TuneJob:
    """What one end-to-end training needs.

    Attributes:
        job: What it shares with a training on caches; its slots are those read from caches.
        entries: Backbones of the live slots.
        examples: What can be used; its backbones are replaced by the job's own.
        params: What is trained, and how.
        corpus: Name of the corpus.
        kept: Where the half-done trainings of the run are kept (`pipeline.e2e.resume`); None:
            nowhere.
        recognised: Whether the trained model is tested on recognised words.
    """

    job: Job
    entries: Mapping[str, BackboneEntry]
    examples: LiveExamples
    params: TuneParams
    corpus: str
    kept: Path | None = None
    recognised: bool = False


class Size(NamedTuple):
    """Parameters of a model.

    Attributes:
        trained: Those with gradients, adapters among them.
        total: All, adapters left out: they end in the weights.
    """

    trained: int
    total: int


def run_tune_job(tuning: TuneJob, tell: Tell | None = None, *, every: float = 30.0) -> Size:
    """Train, predict, export, and write the files of the job's folder.

    Of several processes all train and predict, and the first one writes.

    Args:
        tuning: What to train.
        tell: Told how far it is; None: nobody.
        every: Seconds between two lines within an epoch.

    Raises:
        StoppedError: If SIGTERM came; the training is saved.
        HeronryError: If the loss is not finite, or an utterance does not fit the memory.
    """
    job, ranks = tuning.job, tuning.examples.ranks
    watch = Watch(job, tell)
    with repeatable(job.device, threads=torch.get_num_threads()), full_float32():
        model, examples = _made(tuning)
        trained = _count(model, trained=True)
        ranks.level(model)
        ranks.draw_apart(job.seed)
        fitted = _fitted(tuning, model, examples, tell, every)
        model.merge()
        if ranks.is_first:
            write_model(tuning, model, examples)
            write_history(job, fitted)
        write_predictions(job, model, examples)
        _write_extras(tuning, model, examples)
        if ranks.is_first:
            _export(tuning, model, examples)
        ranks.wait()
    kept = fitted.history[fitted.best - 1]
    watch.tell(f"kept epoch {fitted.best}, {watch.score(kept)}", done=True)
    return Size(trained, _count(model))


def _fitted(
    tuning: TuneJob, model: EndToEnd, examples: LiveExamples, tell: Tell | None, every: float
) -> Fitted:
    """Train, watched and kept."""
    job, params = tuning.job, tuning.params
    folder = tuning.kept and tuning.kept / f"seed_{job.seed}_fold_{job.fold}"
    speed = Speed(examples.utterances)
    ranks = examples.ranks
    with until_asked(launched=ranks.count > 1) as wish:
        watch = TuneWatch(job, folder, params, wish=wish, speed=speed, tell=tell, every=every)
        events = [EventFiles(job.out / EVENTS)] if params.tensorboard and ranks.is_first else []
        try:
            return fit(
                model,
                examples,
                train=examples.split(job.fold, "train"),
                valid=examples.split(job.fold, "valid"),
                params=job.params,
                seed=job.seed,
                watcher=Watchers([watch, *events]),
            )
        except (NotFiniteError, TooLargeError) as error:
            last = watch.checkpoints.last
            kept = "there is no checkpoint yet" if last is None else f"the last one is {last}"
            raise type(error)(f"{error} ({kept})") from error


def write_model(tuning: TuneJob, model: EndToEnd, examples: LiveExamples) -> None:
    """Write the fusion, as a training on caches does: it takes the streams of the exported ones."""
    job = tuning.job
    save_model(
        job.out,
        model.fusion,
        kind=job.kind,
        args=job.args,
        specs=examples.specs,
        classes=job.classes,
        inputs=job.inputs,
    )


def _write_extras(tuning: TuneJob, model: EndToEnd, examples: LiveExamples) -> None:
    """What the report says beside the model's own scores: worse conditions, and probes."""
    job, first = tuning.job, examples.ranks.is_first
    test = examples.split(job.fold, "test")
    changed = live_conditions(examples, test, job.seed, recognised=tuning.recognised)
    path = job.out / "conditions.csv"
    write_guesses(path, model, changed, test, fusion=model.fusion, writes=first)
    write_live_probes(job.out / "probes.csv", model, examples, job.fold)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """On a GPU float32 means float32, as in extraction: convolutions have TF32 on by default."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul


def _made(tuning: TuneJob) -> tuple[EndToEnd, LiveExamples]:
    """The model as it is before training, and what its backbones read."""
    job = tuning.job
    backbones = {slot: entry.build() for slot, entry in tuning.entries.items()}
    examples = dataclasses.replace(tuning.examples, backbones=backbones)
    torch.manual_seed(job.seed)
    fusion = make_model(job.kind, job.args, examples.specs, len(job.classes), inputs=job.inputs)
    init = tuning.params.beginning
    if init is not None:
        warm_start(fusion, beginning_of(init), job, _description(job, examples))
    return EndToEnd(fusion, examples.backbones, tuning.params).to(job.device), examples


def _description(job: Job, examples: LiveExamples) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "args": dict(job.args),
        "specs": {slot: spec.to_dict() for slot, spec in examples.specs.items()},
        "classes": list(job.classes),
        "inputs": InputSettings.of(job.inputs).to_dict(),
    }


def _export(tuning: TuneJob, model: EndToEnd, examples: LiveExamples) -> None:
    train = [examples.utterances[label.id] for label in examples.split(tuning.job.fold, "train")]
    for slot, backbone in _exported(model).items():
        folder = tuning.job.out / BACKBONES / slot
        export(folder, tuning.entries[slot], backbone, tuning.corpus, train)


def _exported(model: EndToEnd) -> dict[str, Backbone]:
    """Backbones that were trained; those that were frozen are what they were."""
    return {
        slot: model.backbones[slot]
        for slot, tuned in model.tuned.items()
        if tuned.how.tune != "frozen" and exportable(model.backbones[slot])
    }


def _count(model: nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)
