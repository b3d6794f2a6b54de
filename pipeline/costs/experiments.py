"""Cost of experiments: the features that they need, and end-to-end training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from features.corpus.entry import CorpusEntry, corpus_entry
from features.process.terminal import size as bytes_text
from pipeline.costs.cards import Speed, speed
from pipeline.costs.corpora import HOURS, CorpusSize, corpus_size
from pipeline.costs.features import Features, distinct, hours_text, operations_of
from pipeline.costs.networks import network_of
from pipeline.params.file import Params
from pipeline.params.tuning import LIVE

E2E = "e2e"
TUNED, FROZEN = 3, 1  # times the operations of a pass: one forwards, two backwards
AGAIN = 1  # more where blocks are computed again in the backward pass
SPEAKERS = {"emodb": 10, "iemocap": 10, "crema_d": 91, "ravdess": 24}  # of whole corpora
SESSIONS = {"iemocap": 5}

Sizes = Callable[[str], CorpusSize | None]


@dataclass(frozen=True)
class Training:
    """Operations of an end-to-end training.

    Attributes:
        operations: Of all epochs, seeds and folds; None: not known.
        dtype: Precision that they are computed in.
    """

    operations: float | None
    dtype: str


def cost_lines(variants: Sequence[Params]) -> list[str]:
    """Features, bytes and GPU-hours of some experiments, a line each, and what the hours rest on.

    Features that several experiments share are counted once. Nothing is loaded or computed.

    Args:
        variants: params.yaml of each experiment.

    Raises:
        ParamsError: If the environment names a card that is not known.
    """
    rate, sizes = speed(), [_sizes(params) for params in variants]
    pairs = list(zip(variants, sizes, strict=True))
    needed = distinct(each for params, of in pairs for each in features_of(params, of))
    corpora = {params.corpus: of(params.corpus) for params, of in pairs}
    trainings = [training_of(params, of) for params, of in pairs if params.regime == E2E]
    return [
        *(_corpus_line(name, size) for name, size in corpora.items()),
        *(each.line(rate) for each in needed),
        *_together([each for each in needed if not each.here], rate),
        *_training_lines(trainings, rate),
        *["training on caches is not counted"] * (len(trainings) < len(variants)),
        rate.line(),
    ]


def features_of(params: Params, sizes: Sizes) -> list[Features]:
    """Features that an experiment reads from a cache.

    End-to-end training computes those of its live slots anew, so that they need no cache.
    """
    model = params.model(params.fusion)
    live = LIVE if params.regime == E2E else ()
    slots = {**model.slots, "asr": model.asr}
    names = dict.fromkeys(name for slot, name in slots.items() if slot not in live)
    entries = [params.backbone(name) for name in names]
    size = sizes(params.corpus)
    return [Features(params.corpus, entry, size) for entry in entries if entry.kind != "none"]


def training_of(params: Params, sizes: Sizes) -> Training:
    """Operations of an experiment's end-to-end training, its fusion left out.

    All epochs are counted, over the whole corpus: the validation split of each epoch makes up for
    what is not trained on.
    """
    model, tuning, size = params.model(params.fusion), params.tuning(), sizes(params.corpus)
    if size is None:
        return Training(None, tuning.precision)
    an_epoch = 0.0
    for slot, name in model.slots.items():
        entry = params.backbone(name)
        if slot not in LIVE or entry.kind == "none":
            continue
        network = network_of(entry)
        if network is None:
            return Training(None, tuning.precision)
        tuned = tuning.of(slot).tune != "frozen"
        passes = TUNED + AGAIN * tuning.gradient_checkpointing if tuned else FROZEN
        an_epoch += passes * operations_of(entry, network, size)
    jobs = len(params.seeds_of(model)) * folds_of(params)
    return Training(an_epoch * params.training(model).epochs * jobs, tuning.precision)


def folds_of(params: Params) -> int:
    """Number of folds of the selected corpus; of an unknown number of speakers, one."""
    entry: CorpusEntry = corpus_entry(params.corpus, params.corpora[params.corpus])
    counts = {
        "speaker_folds": entry.folds,
        "leave_one_speaker_out": SPEAKERS.get(entry.kind, 1),
        "leave_one_session_out": SESSIONS.get(entry.kind, 1),
    }
    return 1 if entry.fold is not None else counts.get(entry.protocol, 1)


def _sizes(params: Params) -> Sizes:
    return functools.cache(functools.partial(corpus_size, params))


def _corpus_line(name: str, size: CorpusSize | None) -> str:
    if size is None:
        known = ", ".join(HOURS)
        return f"corpus {name}: not prepared, and no published counts (there are of {known})"
    return size.line(name)


def _together(missing: Sequence[Features], rate: Speed) -> list[str]:
    if not missing:
        return []
    stored = [each.bytes for each in missing]
    hours = [each.hours(rate) for each in missing]
    known = bytes_text(sum(each or 0 for each in stored)), hours_text(sum(h or 0.0 for h in hours))
    least = "at least " if None in (*stored, *hours) else ""
    return [f"missing features: {len(missing)}; {least}{known[0]}, {known[1]}"]


def _training_lines(trainings: Sequence[Training], rate: Speed) -> list[str]:
    if not trainings:
        return []
    hours = [
        None if each.operations is None else rate.hours(each.operations, each.dtype)
        for each in trainings
    ]
    least = "at least " if None in hours else ""
    total = hours_text(sum(each or 0.0 for each in hours))
    return [f"end-to-end training, all epochs, seeds and folds: {least}{total}"]
