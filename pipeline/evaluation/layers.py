"""Layers of a network: scores of linear probes on each hidden state, and learned mixes of them.

The layer is chosen by validation scores; test scores stand beside them and choose nothing, since
the best of many test scores is partly luck. Probes have no seed; folds are pooled on the test
split, and averaged on the validation split, as everywhere in a report.

Shapes: N rows of a fold, R test rows of all folds, L hidden states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.corpus.manifest import Label
from pipeline.evaluation.groups import measure
from pipeline.evaluation.layer_results import Mix
from pipeline.evaluation.rows import Clusters, Flags, Ints, RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.slots import Difference, differences
from pipeline.evaluation.statistics import Intervals, Scores
from pipeline.metrics.classes import MONITORS, confusion, scores

CHOOSES = "macro_f1"
"""Metric of the validation split that chooses a layer, as it ranks `heronry board`."""


@dataclass(frozen=True)
class FoldGuesses:
    """What the probes of a fold predict.

    Attributes:
        labels: `[N]` true classes.
        test: `[N]` bool, True for rows of the test split (the others are of the validation split).
        predictions: `[N]` predicted classes by the number of the hidden state.
    """

    labels: Ints
    test: Flags
    predictions: Mapping[int, Ints]


@dataclass(frozen=True)
class LayerScore:
    """The probe of one hidden state.

    Attributes:
        number: Number of the state; 0 is the input of the network's first layer.
        valid: Scores of the validation split, means over folds.
        test: Scores of the test split, folds pooled.
        intervals: 95 % intervals of `test`; empty for too few clusters.
        change: Scores of `test` minus those of the chosen layer, by metric.
    """

    number: int
    valid: Scores
    test: Scores
    intervals: Intervals
    change: Mapping[str, Difference]


@dataclass(frozen=True)
class LayerCurve:
    """The probes of all hidden states of some features.

    Attributes:
        name: Name of the features: a slot, or an entry of `backbones`.
        layers: Scores by layer, in order of number.
        chosen: Number of the layer with the highest validation score; the lowest of equals.
        utterances: Number of test utterances.
        speakers: Number of their speakers.
        clusters: Units that the bootstrap draws.
    """

    name: str
    layers: tuple[LayerScore, ...]
    chosen: int
    utterances: int
    speakers: int
    clusters: Clusters

    @property
    def best(self) -> LayerScore:
        """The chosen layer."""
        return next(layer for layer in self.layers if layer.number == self.chosen)


@dataclass(frozen=True)
class MixedModel:
    """The mix of one trained model."""

    seed: int
    fold: int
    mix: Mix


@dataclass(frozen=True)
class MixedSlot:
    """A slot whose hidden states are mixed by learned weights, `inputs.mix_layers`.

    Attributes:
        slot: Name of the slot.
        numbers: Numbers of the L states, in stored order; their places where features name none.
        models: The mix of each trained model, in order of seed and fold.
    """

    slot: str
    numbers: tuple[int, ...]
    models: tuple[MixedModel, ...]

    @property
    def rows(self) -> list[tuple[float, ...]]:
        """Number of each state, mean weight, and with several models the lowest and highest."""
        shares = np.stack([model.mix.shares for model in self.models])
        found = [shares.mean(0), *([shares.min(0), shares.max(0)] if len(shares) > 1 else [])]
        return list(zip(self.numbers, *(each.tolist() for each in found), strict=True))


def mixed_slots(run: RunFolder) -> tuple[MixedSlot, ...]:
    """The slots of a run that are mixed."""
    found = []
    for slot, mix in run.jobs[0].mixes.items():
        entry = run.slots.get(slot) or {}
        numbers = (entry.get("provenance") or {}).get("layer")
        if not isinstance(numbers, list) or len(numbers) != len(mix.shares):
            numbers = range(len(mix.shares))
        models = (MixedModel(job.seed, job.fold, job.mixes[slot]) for job in run.jobs)
        found.append(MixedSlot(slot, tuple(numbers), tuple(models)))
    return tuple(found)


def layer_curve(name: str, rows: RunRows, folds: Sequence[FoldGuesses]) -> LayerCurve:
    """Score the probes of some features.

    Args:
        name: Name of the features.
        rows: Test rows of all folds, R of them, of one seed.
        folds: Predictions in order of fold; their test rows are those of `rows`.
    """
    numbers = sorted(folds[0].predictions)
    valid = {number: _valid_scores(folds, number, len(rows.classes)) for number in numbers}
    chosen = max(numbers, key=lambda number: valid[number][CHOOSES])
    tested = {
        number: measure(
            rows,
            name,
            predictions=np.concatenate([fold.predictions[number][fold.test] for fold in folds]),
            least=1,
        )
        for number in numbers
    }
    layers = tuple(
        LayerScore(
            number=number,
            valid=valid[number],
            test=found.group.scores,
            intervals=found.group.intervals,
            change=differences(found, tested[chosen]),
        )
        for number, found in tested.items()
    )
    of = tested[chosen].group
    return LayerCurve(name, layers, chosen, of.utterances, of.speakers, rows.clusters)


def run_curves(run: RunFolder, known: Mapping[str, Label]) -> tuple[LayerCurve, ...]:
    """The curve of each slot of a run that holds a stack; none of a run without probes of layers.

    Args:
        run: Run folder that `pipeline.evaluation.labels` has checked.
        known: Labels by id.
    """
    slots = list(run.jobs[0].layers)
    if not slots:
        return ()
    first = replace(run, seeds=run.seeds[:1], jobs=run.jobs[: run.folds])
    rows = RunRows.of(first, known)
    return tuple(
        layer_curve(
            slot,
            rows,
            [FoldGuesses(job.labels, job.test, job.layers[slot]) for job in first.jobs],
        )
        for slot in slots
    )


def _valid_scores(folds: Sequence[FoldGuesses], number: int, classes: int) -> Scores:
    matrices = [
        confusion(fold.labels[~fold.test], fold.predictions[number][~fold.test], classes)
        for fold in folds
    ]
    found = scores(np.stack(matrices))
    return {name: float(found[name].mean()) for name in MONITORS}
