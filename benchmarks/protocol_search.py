"""Protocols of `concat` on single slots beside their linear probes, by validation speakers alone.

    python -m benchmarks.protocol_search [--corpus ravdess] [--seeds 5] [--slots speech=...]

Run it in a project whose corpus is prepared with speaker-disjoint splits and extracted. No test
split is read. In each fold two speakers of the training split choose the kept epoch, and those of
the validation split score it, so that nothing is scored on what it was chosen by; a corpus of one
fold has its training and validation speakers dealt to five. The probe is trained on the same rows.

`concat` averages frames before it projects them: each utterance is kept as one frame, its average,
and standardised or whitened by the statistics of all frames, which gives the numbers of training on
frames in a fraction of the time. Slots of bins are trained on their frames.

Every training goes on to its last epoch; what would have been kept is read off its epochs by three
rules: `weighted_f1` or `loss` of the choosing speakers with a patience of ten epochs, and `last`.
Printed as JSON, a line for each slot and protocol: mean UAR over folds and seeds, minus that of the
probe, with the standard error of the difference over folds, and the spread over seeds.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from features.cache.reader import CacheReader
from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import Label
from features.stream import Stream
from pipeline.data.examples import Examples, join
from pipeline.metrics.classes import validation_scores
from pipeline.model.checkpoint import make_model
from pipeline.model.inputs import InputLayers
from pipeline.model.standardize import Moments
from pipeline.params.training import TrainParams
from pipeline.runs.job import repeatable
from pipeline.runs.probes import cached_vectors, fit_probe
from pipeline.training.loop import fit
from pipeline.training.predict import evaluate
from pipeline.training.state import Epoch, Progress, Training

CHOOSERS = 2  # training speakers that choose the kept epoch
DEALT = 5  # folds of a corpus that has only one
PATIENCE = 10
COMMON: dict[str, Any] = {
    "lr": 5e-4,
    "weight_decay": 0.001,
    "schedule": "plateau",
    "clip_norm": 10.0,
}
SMOOTHED: dict[str, Any] = {"batch_size": 32, "label_smoothing": 0.1}
FASTER: dict[str, Any] = SMOOTHED | {"lr": 2e-3}
NARROW = {"d_model": 256}
# By name: arguments of `concat`, settings of `train`, and of `inputs` the one that lists the slot.
PROTOCOLS: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "before": ({"d_model": 512}, {"batch_size": 16}, None),
    "standardized": ({"d_model": 512}, {"batch_size": 16}, "standardize"),
    "chosen": (NARROW, SMOOTHED, "standardize"),
    "chosen_not_standardized": (NARROW, SMOOTHED, None),
    "chosen_whitened": (NARROW, SMOOTHED, "whiten"),
    "spectral_standardized": (NARROW | {"dropout": 0.2}, FASTER, "standardize"),
    "spectral": (NARROW | {"dropout": 0.2}, FASTER, "whiten"),
}


def main(
    *,
    corpus: str = "demo",
    slots: Annotated[str, typer.Option(help="Caches: slot=backbone,...")] = (
        "text=minilm,speech=whisper_tiny_en,nonverbal=whisper_tiny_en_mid,spectral=logmel"
    ),
    protocols: Annotated[str, typer.Option(help="Some of those above.")] = ",".join(PROTOCOLS),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings in each fold.")] = 5,
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 60,
) -> None:
    """Train all protocols on all slots, and print a line for each."""
    card, labels = read_labelled(Path("data", corpus, "labels"))
    for slot, _, backbone in (each.partition("=") for each in slots.split(",")):
        read = join({slot: Path("cache", corpus, backbone)}, labels, card["classes"], verify=False)
        folds = [dataclasses.replace(read, labels=fold) for fold in speaker_folds(read.labels)]
        probes = np.array([probe(fold, slot) for fold in folds])
        typer.echo(json.dumps({"slot": slot, "probe": round(float(probes.mean()), 3)}))
        for name in protocols.split(","):
            args, train, scaled = PROTOCOLS[name]
            params = TrainParams(**COMMON | train | {"epochs": epochs, "patience": epochs})
            given = (args, {scaled: [slot]} if scaled else {}, params)
            averages = Averages(read.readers[slot], read.labels, products=scaled == "whiten")
            found = [
                [training(fold, averages, *given, seed) for seed in range(seeds)] for fold in folds
            ]
            rules = {
                rule: compared(np.array([[each[rule] for each in row] for row in found]), probes)
                for rule in found[0][0]
            }
            typer.echo(json.dumps({"slot": slot, "protocol": name, **rules}))


def compared(scores: NDArray[np.float64], probes: NDArray[np.float64]) -> dict[str, float]:
    """Mean of scores `[folds, seeds]`, their difference to the probe's `[folds]`, and spreads."""
    apart = scores.mean(1) - probes
    return {
        "uar": round(float(scores.mean()), 3),
        "minus_probe": round(float(apart.mean()), 3),
        "standard_error": round(float(apart.std(ddof=1)) / math.sqrt(len(apart)), 3),
        "seeds_sd": round(float(scores.std(1).mean()), 3),
    }


def speaker_folds(labels: Sequence[Label]) -> Iterator[list[Label]]:
    """Labels of each fold with one split: train, valid (chooses), test (scores), or another."""
    count = len(labels[0].splits)
    seen = sorted({each.speaker for each in labels if each.splits[0] in ("train", "valid")})
    dealt = np.random.default_rng(0).permutation(seen).tolist()
    for fold in range(DEALT if count == 1 else count):
        if count == 1:
            scored, others = set(dealt[fold::DEALT]), set(dealt) - set(dealt[fold::DEALT])
        else:
            of = {"train": set[str](), "valid": set[str](), "test": set[str]()}
            for each in labels:
                of[each.splits[fold]].add(each.speaker)
            scored, others = of["valid"], of["train"]
        order = np.random.default_rng(fold).permutation(sorted(others))
        choosers = set(order[:CHOOSERS].tolist())
        splits = dict.fromkeys(others, "train")
        splits |= dict.fromkeys(choosers, "valid")
        splits |= dict.fromkeys(scored, "test")
        yield [
            dataclasses.replace(each, splits=(splits[each.speaker],))
            for each in labels
            if each.speaker in splits
        ]


def uar(labels: Sequence[Label], probabilities: NDArray[np.float64], classes: Any) -> float:
    """Unweighted average recall."""
    truth = np.array([classes.index(label.class_name) for label in labels])
    return validation_scores(truth, probabilities.argmax(1), len(classes))["uar"]


def probe(examples: Examples, slot: str) -> float:
    """UAR of the report's probe, trained on the rows that the models are trained on."""
    train, scored = examples.split(0, "train"), examples.split(0, "test")
    known, tested = (cached_vectors(examples, slot, labels) for labels in (train, scored))
    found = fit_probe(known, tested, [each.class_name for each in train], examples.classes)
    return uar(scored, found, examples.classes)


class Averages:
    """Utterances of a slot as one frame each, their average, in place of a `CacheReader`.

    Args:
        reader: Cache of the slot; bins stay frames.
        labels: Utterances to read.
        products: Whether their frames are to be whitened.
    """

    def __init__(
        self, reader: CacheReader, labels: Sequence[Label], *, products: bool = False
    ) -> None:
        self.spec, self.reader = reader.spec, reader
        ids = [label.id for label in labels] if reader.spec.bins is None else []
        self.moments = {
            id: Moments.of(torch.from_numpy(reader[id].copy()), products=products) for id in ids
        }

    def batch(self, ids: Sequence[str]) -> Stream:
        """Averages `[B, 1, D]`, or bins `[B, T]`."""
        if self.spec.bins is not None:
            return self.reader.batch(ids)
        values = np.stack([self.moments[id].mean for id in ids]).astype(np.float32)
        return Stream(torch.from_numpy(values)[:, None], torch.ones(len(ids), 1).bool())

    def length(self, id: str) -> int:
        """Frames of an utterance, by which batches are sorted."""
        return self.reader.length(id)

    def fit(self, layers: InputLayers, train: Sequence[Label]) -> None:
        """Give a model's layers the statistics of all frames, not of the averages."""
        for scale in layers.open.values():
            scale.fit(reduce(add, (self.moments[label.id] for label in train)))


class Watched(Progress):
    """Scores every epoch on speakers that choose nothing.

    Args:
        examples: The scored speakers are its test split.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples, self.labels = examples, examples.split(0, "test")
        self.scores: list[float] = []

    def epoch_ended(self, training: Training, *, ended: bool) -> None:  # noqa: ARG002  the contract
        """Score the epoch's weights."""
        found = evaluate(training.model, self.examples, self.labels)
        self.scores.append(uar(self.labels, found.probabilities, self.examples.classes))


def training(
    examples: Examples,
    averages: Averages,
    args: Mapping[str, Any],
    inputs: Mapping[str, Any],
    params: TrainParams,
    seed: int,
) -> dict[str, float]:
    """UAR of the scored speakers by the rule that chooses the epoch."""
    (slot,) = examples.readers
    examples = dataclasses.replace(examples, readers={slot: averages})  # type: ignore[dict-item]
    train, choosing = examples.split(0, "train"), examples.split(0, "valid")
    watched = Watched(examples)
    with repeatable("cpu"):
        torch.manual_seed(seed)
        model = make_model("concat", args, examples.specs, len(examples.classes), inputs=inputs)
        for layers in model.modules():
            if isinstance(layers, InputLayers):
                averages.fit(layers, train)
        fitted = fit(
            model,
            examples,
            train=train,
            valid=choosing,
            params=params,
            seed=seed,
            progress=watched,
        )
    kept = {rule: chosen(fitted.history, rule) for rule in ("weighted_f1", "loss")}
    return {**{rule: watched.scores[n] for rule, n in kept.items()}, "last": watched.scores[-1]}


def chosen(history: Sequence[Epoch], monitor: str) -> int:
    """Place of the epoch that would be kept with a patience of `PATIENCE`."""
    best = 0
    for place, epoch in enumerate(history):
        ahead = epoch.score(monitor) - history[best].score(monitor)
        if (-ahead if monitor == "loss" else ahead) > 0:
            best = place
        if place - best >= PATIENCE:
            break
    return best


if __name__ == "__main__":
    typer.run(main)
