"""Cost of experiments: the features that they need, and training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from features.corpus.entry import CorpusEntry, corpus_entry
from features.process.terminal import size as bytes_text
from pipeline.costs.cards import Speed, speed
from pipeline.costs.corpora import HOURS, CorpusSize, corpus_size
from pipeline.costs.features import Features, distinct, hours_text, operations_of
from pipeline.costs.fusion import operations_of_a_pass
from pipeline.costs.networks import network_of
from pipeline.params.file import ModelEntry, Params
from pipeline.params.tuning import LIVE

E2E = "e2e"
TUNED, FROZEN = 3, 1  # times the operations of a pass: one forwards, two backwards
AGAIN = 1  # more where blocks are computed again in the backward pass
STEP_SECONDS = 0.01  # assumed least time of a training step, however small its batch
SPEAKERS = {"emodb": 10, "iemocap": 10, "crema_d": 91, "ravdess": 24}  # of whole corpora
SESSIONS = {"iemocap": 5}

Sizes = Callable[[str], CorpusSize | None]


@dataclass(frozen=True)
class Training:
    """All trainings of an experiment: its seeds and folds, and all epochs of each.

    Attributes:
        operations: Operations of them together; None: not known.
        steps: Number of batches.
        dtype: Precision that they are computed in.
    """

    operations: float | None
    steps: float = 0.0
    dtype: str = "float32"

    def hours(self, rate: Speed) -> float | None:
        """GPU-hours, one training after the other; None: not known."""
        if self.operations is None:
            return None
        return max(rate.hours(self.operations, self.dtype), self.steps * STEP_SECONDS / 3600)


def cost_lines(variants: Sequence[Params]) -> list[str]:
    """Features, bytes and GPU-hours of some experiments, a line each, and what the hours rest on.

    Features that several experiments share are counted once. No weights are loaded. Ensembles and
    speech language models are not counted: the former need what their members need, the latter's
    time depends on the service or the length of its prompts.

    Args:
        variants: params.yaml of each experiment.

    Raises:
        ParamsError: If the environment names a card that is not known.
    """
    rate, sizes = speed(), [_sizes(params) for params in variants]
    pairs = list(zip(variants, sizes, strict=True))
    needed = distinct(each for params, of in pairs for each in features_of(params, of))
    corpora = {params.corpus: of(params.corpus) for params, of in pairs}
    trainings = [training_of(params, of) for params, of in pairs if params.section == "models"]
    return [
        *(_corpus_line(name, size) for name, size in corpora.items()),
        *(each.line(rate) for each in needed),
        *_together([each for each in needed if not each.here], rate),
        *_training_lines([each.hours(rate) for each in trainings]),
        rate.line(),
    ]


def features_of(params: Params, sizes: Sizes) -> list[Features]:
    """Features that an experiment reads from a cache.

    End-to-end training computes those of its live slots anew, so that they need no cache.
    """
    if params.section != "models":
        return []
    model = params.model(params.fusion)
    live = LIVE if params.regime == E2E else ()
    slots = {**model.slots, "asr": model.asr}
    names = dict.fromkeys(name for slot, name in slots.items() if slot not in live)
    entries = [params.backbone(name) for name in names]
    size = sizes(params.corpus)
    return [Features(params.corpus, entry, size) for entry in entries if entry.kind != "none"]


def training_of(params: Params, sizes: Sizes) -> Training:
    """Operations of an experiment's training; of the backbones only where they are live.

    All epochs are counted, over the whole corpus: the validation split of each epoch makes up for
    what is not trained on.
    """
    model, size = params.model(params.fusion), sizes(params.corpus)
    tuning = params.tuning(model)
    live = params.regime == E2E
    dtype = tuning.precision if live else "float32"
    counted = None if size is None else operations_of_a_pass(params, model, params.corpus, size)
    if size is None or counted is None:
        return Training(None, dtype=dtype)
    (operations, utterances), protocol = counted, params.training(model)
    rows = size.utterances / utterances
    an_epoch = TUNED * operations * rows + (_live(params, model, size) if live else 0.0)
    epochs = protocol.epochs * len(params.seeds_of(model)) * folds_of(params)
    return Training(an_epoch * epochs, rows / protocol.batch_size * epochs, dtype)


def _live(params: Params, model: ModelEntry, size: CorpusSize) -> float:
    """Operations of the live backbones in an epoch, of sizes that are known."""
    total, tuning = 0.0, params.tuning(model)
    for slot in LIVE:
        entry = params.backbone(model.slots[slot])
        network = network_of(entry)
        if network is not None:
            tuned = tuning.of(slot).tune != "frozen"
            passes = TUNED + AGAIN * tuning.gradient_checkpointing if tuned else FROZEN
            total += passes * operations_of(entry, network, size)
    return total


def folds_of(params: Params) -> int:
    """Number of folds of the selected corpus; of an unknown number of speakers, one.

    A union with the splits of its members has as many as the member with the most.
    """
    return _folds(corpus_entry(params.corpus, params.corpora[params.corpus], params.corpora))


def _folds(entry: CorpusEntry) -> int:
    if entry.fold is not None:
        return 1
    if entry.members and entry.protocol == "official":
        return max(map(_folds, entry.members))
    counts = {
        "speaker_folds": entry.folds,
        "leave_one_speaker_out": SPEAKERS.get(entry.kind, 1),
        "leave_one_session_out": SESSIONS.get(entry.kind, 1),
    }
    return counts.get(entry.protocol, 1)


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


def _training_lines(hours: Sequence[float | None]) -> list[str]:
    if not hours:
        return []
    least = "at least " if None in hours else ""
    total = hours_text(sum(each or 0.0 for each in hours))
    return [
        f"training, all epochs, seeds and folds of {len(hours)} "
        f"{'experiment' if len(hours) == 1 else 'experiments'}: {least}{total}"
    ]
